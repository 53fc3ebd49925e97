//! Schemas of the user, and the names that lead to them.
//!
//! Names without a schema are completed once, when a statement begins: what is looked for, along the search path; what is made, with its
//! first schema. So everything else, and the text that is kept of a view, knows full names; `public` is what is left out.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use cluster::Catalog;
use datafusion::sql::sqlparser::ast::{
    CommentObject, DataType, Expr, Ident, ObjectName, ObjectNamePart, ObjectType, Query, SchemaName, Statement as Ast,
    Value, VisitMut, VisitorMut, visit_expressions_mut, visit_relations_mut,
};

use super::ddl::folded;
use super::keys::quoted;
use super::temporary::ALIAS;
use super::{Outcome, Session};
use crate::error::{Condition, Error};

impl Session {
    /// The schemas of the search path that are there, without the system's; the session's own comes first.
    fn path(&self, catalog: &Catalog) -> Vec<String> {
        let written = self.settings.lock().search_path();
        let mut path: Vec<String> = written.iter().filter(|name| catalog.has_schema(name)).cloned().collect();
        let temporary = self.temporary.as_ref().map(|temporary| &temporary.name);
        if path.iter().all(|name| Some(name) == temporary) {
            // Nothing is found there, and nothing made.
            path.extend(written.into_iter().find(|name| Some(name) != temporary));
        }
        path
    }

    /// Gives the names of a statement their schemas, unless that is `public`.
    pub(super) fn complete_names(&self, ast: &mut Arc<Ast>) {
        // What is prepared looks for its names when it is executed.
        if matches!(ast.as_ref(), Ast::Prepare { .. }) {
            return;
        }
        let catalog = self.engine.node().catalog();
        let path = self.path(&catalog);
        if path == ["public"] {
            return;
        }
        let ast = Arc::make_mut(ast);
        let made = match ast {
            Ast::CreateTable(create) if !create.temporary => Some(&mut create.name),
            Ast::CreateView(create) => Some(&mut create.name),
            _ => None,
        };
        let temporary = self.temporary.as_ref().map(|temporary| temporary.name.as_str());
        let first = path.iter().find(|schema| Some(schema.as_str()) != temporary);
        if let (Some(name), Some(first)) = (made, first) {
            complete(name, first);
        }
        if let Ast::CreateTable(create) = ast
            && create.temporary
        {
            complete(&mut create.name, ALIAS);
        }
        let mut own = Own(BTreeSet::new());
        let _all = VisitMut::visit(ast, &mut own);
        let looked_for = |name: &mut ObjectName| {
            if let (Some(temporary), [ObjectNamePart::Identifier(schema), _]) = (temporary, &mut name.0[..])
                && folded(schema) == ALIAS
            {
                *schema = Ident::with_quote('"', temporary);
            }
            let Some(found) = found(name, &catalog, &path).filter(|_| !own.has(name)) else { return };
            complete(name, &found);
        };
        let _all = visit_expressions_mut(ast, |expr| {
            complete_register(expr, &catalog, &path);
            ControlFlow::<()>::Continue(())
        });
        match ast {
            Ast::Drop { object_type: ObjectType::Table | ObjectType::View, names, .. } => {
                names.iter_mut().for_each(looked_for);
            }
            Ast::Comment { object_type: CommentObject::Table | CommentObject::View, object_name, .. } => {
                looked_for(object_name);
            }
            Ast::Comment { object_type: CommentObject::Column, object_name, .. } if object_name.0.len() == 2 => {
                let mut relation = ObjectName(object_name.0[..1].to_vec());
                looked_for(&mut relation);
                relation.0.extend(object_name.0.pop());
                *object_name = relation;
            }
            ast => {
                let _all = visit_relations_mut(ast, |name| {
                    looked_for(name);
                    ControlFlow::<()>::Continue(())
                });
            }
        }
    }

    pub(super) async fn create_schema(&mut self, name: &SchemaName, if_not_exists: bool) -> Result<Outcome, Error> {
        self.refuse_in_block("CREATE SCHEMA").await?;
        let name = match name {
            SchemaName::Simple(name) | SchemaName::NamedAuthorization(name, _) => schema_name(name)?,
            SchemaName::UnnamedAuthorization(role) => folded(role),
        };
        if name.starts_with("pg_") || matches!(name.as_str(), "information_schema" | "annal") {
            let message = format!("unacceptable schema name \"{name}\"");
            let mut error = Error::report(Condition::ReservedName, message);
            if let Error::Reported(report) = &mut error {
                report.detail =
                    Some("Names that begin with pg_, information_schema and annal are the system's.".to_owned());
            }
            return Err(error);
        }
        match self.engine.node().create_schema(name.clone()).await {
            Ok(()) => {}
            Err(cluster::Error::SchemaExists(_)) if if_not_exists => {
                self.notice("NOTICE", "42P06", format!("schema \"{name}\" already exists, skipping"));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Outcome::Done("CREATE SCHEMA".to_owned()))
    }

    /// With `cascade`, what is in it goes first, one by one.
    pub(super) async fn drop_schemas(
        &mut self,
        names: &[ObjectName],
        if_exists: bool,
        cascade: bool,
    ) -> Result<Outcome, Error> {
        self.refuse_in_block("DROP SCHEMA").await?;
        for name in names {
            let name = schema_name(name)?;
            if cascade {
                self.empty_schema(&name).await?;
            }
            match self.engine.node().drop_schema(name.clone()).await {
                Ok(()) => {}
                Err(cluster::Error::NoSuchSchema(_)) if if_exists => {
                    self.notice("NOTICE", "00000", format!("schema \"{name}\" does not exist, skipping"));
                }
                Err(cluster::Error::SchemaNotEmpty { relations, .. }) => return Err(not_empty(&name, &relations)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Outcome::Done("DROP SCHEMA".to_owned()))
    }

    async fn empty_schema(&mut self, name: &str) -> Result<(), Error> {
        let catalog = self.engine.node().catalog();
        for view in catalog.views.values().filter(|view| view.namespace == name) {
            // Another view's end may have been its own.
            if self.engine.node().catalog().views.contains_key(&view.id) {
                self.drop_readers(view.id).await?;
                self.notice("NOTICE", "00000", format!("drop cascades to view {}", view.name));
                self.engine.node().drop_view(view.clone()).await?;
            }
        }
        for table in catalog.tables.values().filter(|table| table.definition.namespace == name) {
            self.drop_readers(table.definition.id).await?;
            self.notice("NOTICE", "00000", format!("drop cascades to table {}", table.definition.name));
            self.engine.node().drop_table(table.definition.id).await?;
        }
        Ok(())
    }
}

fn schema_name(name: &ObjectName) -> Result<String, Error> {
    match &name.0[..] {
        [ObjectNamePart::Identifier(ident)] => Ok(folded(ident)),
        _ => Err(Error::report(Condition::SyntaxError, format!("improper qualified name: {name}"))),
    }
}

/// The schema a name without one leads to, when that is not `public`; when it is not on the path, one in which the name is not found.
fn found(name: &ObjectName, catalog: &Catalog, path: &[String]) -> Option<String> {
    let [ObjectNamePart::Identifier(ident)] = &name.0[..] else { return None };
    let name = folded(ident);
    let has = |schema: &str| catalog.table(schema, &name).is_some() || catalog.view(schema, &name).is_some();
    let found = path.iter().find(|schema| has(schema));
    let hidden = || (has("public") && !path.iter().any(|schema| schema == "public")).then(|| path.first()).flatten();
    found.or_else(hidden).filter(|schema| *schema != "public").cloned()
}

/// `'name'::regclass`
fn complete_register(expr: &mut Expr, catalog: &Catalog, path: &[String]) {
    let Expr::Cast { expr, data_type: DataType::Regclass, .. } = expr else { return };
    let Expr::Value(value) = expr.as_mut() else { return };
    let Value::SingleQuotedString(text) = &mut value.value else { return };
    let name = match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => Ident::with_quote('"', quoted),
        None => Ident::new(text.as_str()),
    };
    let is_oid = text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = name.quote_style.is_some() || (!text.contains('.') && !is_oid);
    let name = ObjectName(vec![ObjectNamePart::Identifier(name)]);
    if let Some(schema) = found(&name, catalog, path).filter(|_| plain) {
        *text = format!("{}.{text}", quoted(&schema));
    }
}

fn complete(name: &mut ObjectName, schema: &str) {
    if name.0.len() == 1 {
        name.0.insert(0, ObjectNamePart::Identifier(Ident::with_quote('"', schema)));
    }
}

/// Names of a statement's own queries.
struct Own(BTreeSet<String>);

impl Own {
    fn has(&self, name: &ObjectName) -> bool {
        matches!(&name.0[..], [ObjectNamePart::Identifier(ident)] if self.0.contains(&folded(ident)))
    }
}

impl VisitorMut for Own {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        self.0.extend(tables.map(|table| folded(&table.alias.name)));
        ControlFlow::Continue(())
    }
}

fn not_empty(name: &str, relations: &[String]) -> Error {
    let message = format!("cannot drop schema {name} because other objects depend on it");
    let lines: Vec<String> = relations.iter().map(|relation| format!("{relation} depends on schema {name}")).collect();
    let mut error =
        Error::hinted(Condition::DependentObjects, message, "Use DROP ... CASCADE to drop the dependent objects too.");
    if let Error::Reported(report) = &mut error {
        report.detail = Some(lines.join("\n"));
    }
    error
}
