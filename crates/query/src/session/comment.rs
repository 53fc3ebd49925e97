//! COMMENT ON tables, views and their columns.

use datafusion::sql::sqlparser::ast::{CommentObject, Ident, ObjectName, ObjectNamePart, Statement as Ast};
use event::TableId;

use super::ddl::{folded, relation};
use super::{Outcome, Session};
use crate::error::{Condition, Error};

impl Session {
    pub(super) async fn comment(&mut self, ast: &Ast) -> Result<Outcome, Error> {
        let Ast::Comment { object_type, object_name, comment, .. } = ast else {
            return Err(Error::report(Condition::Internal, "it is no COMMENT"));
        };
        let (relation, column) = match object_type {
            CommentObject::Table | CommentObject::View => (self.relation_id(object_name, object_type)?, 0),
            CommentObject::Column => self.column_number(object_name)?,
            other => {
                let message = format!("COMMENT ON {other} is not supported");
                let hint = "Comments are kept on tables, views and columns.";
                return Err(Error::hinted(Condition::FeatureNotSupported, message, hint));
            }
        };
        // An empty text is none, as in PostgreSQL.
        let text = comment.clone().filter(|text| !text.is_empty());
        let said = self.changing().await?.comment(relation, column, text);
        self.changed(said).await?;
        Ok(Outcome::Done("COMMENT".to_owned()))
    }

    fn relation_id(&self, name: &ObjectName, kind: &CommentObject) -> Result<TableId, Error> {
        let (namespace, name) = relation(name)?;
        let catalog = self.visible();
        let view = catalog.view(&namespace, &name).map(|view| view.id);
        match (kind, view) {
            (CommentObject::Table, Some(_)) => {
                Err(Error::report(Condition::WrongObjectType, format!("\"{name}\" is not a table")))
            }
            (_, Some(view)) => Ok(view),
            (_, None) => {
                let table = self.table(&(namespace, name.clone()))?.definition.id;
                match kind {
                    CommentObject::View => {
                        Err(Error::report(Condition::WrongObjectType, format!("\"{name}\" is not a view")))
                    }
                    _ => Ok(table),
                }
            }
        }
    }

    /// `[schema.]relation.column`
    fn column_number(&self, name: &ObjectName) -> Result<(TableId, u32), Error> {
        let (last, of) = match name.0.split_last() {
            Some((ObjectNamePart::Identifier(last), of)) if !of.is_empty() => (folded(last), ObjectName(of.to_vec())),
            _ => return Err(Error::report(Condition::SyntaxError, "column name must be qualified")),
        };
        let id = self.relation_id(&of, &CommentObject::Column)?;
        let catalog = self.visible();
        let names: Vec<&str> = match (catalog.tables.get(&id), catalog.views.get(&id)) {
            (Some(table), _) => table.definition.columns.iter().map(|column| column.name.as_str()).collect(),
            (None, Some(view)) => view.columns.iter().map(|column| column.name.as_str()).collect(),
            (None, None) => Vec::new(),
        };
        let found = (1..).zip(&names).find(|(_, known)| **known == last).map(|(number, _)| (id, number));
        found.ok_or_else(|| {
            let relation = of.0.last().and_then(ObjectNamePart::as_ident).map(Ident::to_string).unwrap_or_default();
            let message = format!("column \"{last}\" of relation \"{relation}\" does not exist");
            Error::report(Condition::UndefinedColumn, message)
        })
    }
}
