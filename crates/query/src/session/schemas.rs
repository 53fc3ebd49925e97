//! Schemas of the user, and the names that lead to them.
//!
//! Names without a schema are completed once, when a statement begins: what is looked for, along the search path; what is made, with its
//! first schema. So everything else, and the text that is kept of a view, knows full names; `public` is what is left out.

use std::ops::ControlFlow;
use std::sync::Arc;

use cluster::Catalog;
use datafusion::sql::sqlparser::ast::{
    CommentObject, CopySource, CreateTable, CreateTableLikeKind, CreateView, DataType, Expr, Ident, ObjectName,
    ObjectNamePart, ObjectType, Query, SchemaName, Statement as Ast, Value, VisitMut, VisitorMut,
};

use super::ddl::folded;
use super::keys::quoted;
use super::temporary::ALIAS;
use super::view::depended_on;
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
        let catalog = self.visible();
        let path = self.path(&catalog);
        if path == ["public"] {
            return;
        }
        let ast = Arc::make_mut(ast);
        let temporary = self.temporary.as_ref().map(|temporary| temporary.name.as_str());
        let first = path.iter().find(|schema| Some(schema.as_str()) != temporary);
        match ast {
            Ast::CreateTable(create) if create.temporary => complete(&mut create.name, ALIAS),
            Ast::CreateTable(CreateTable { name, .. }) | Ast::CreateView(CreateView { name, .. }) => {
                first.into_iter().for_each(|first| complete(name, first));
            }
            _ => {}
        }
        let mut names = Names { catalog: &catalog, path: &path, temporary, queries: Vec::new() };
        // Names that the parser's visitor does not take for relations.
        match ast {
            Ast::Drop { object_type: ObjectType::Table | ObjectType::View, names: dropped, .. } => {
                dropped.iter_mut().for_each(|name| names.look_for(name));
            }
            Ast::Comment { object_type: CommentObject::Table | CommentObject::View, object_name, .. } => {
                names.look_for(object_name);
            }
            Ast::Comment { object_type: CommentObject::Column, object_name, .. } if object_name.0.len() == 2 => {
                let mut relation = ObjectName(object_name.0[..1].to_vec());
                names.look_for(&mut relation);
                relation.0.extend(object_name.0.pop());
                *object_name = relation;
            }
            Ast::CreateTable(CreateTable { like: Some(CreateTableLikeKind::Parenthesized(like)), .. }) => {
                names.look_for(&mut like.name);
            }
            Ast::Copy { source: CopySource::Table { table_name, .. }, .. } => names.look_for(table_name),
            _ => {}
        }
        let _all = VisitMut::visit(ast, &mut names);
    }

    pub(super) async fn create_schema(&mut self, name: &SchemaName, if_not_exists: bool) -> Result<Outcome, Error> {
        let name = match name {
            SchemaName::Simple(name) | SchemaName::NamedAuthorization(name, _) => schema_name(name)?,
            SchemaName::UnnamedAuthorization(role) => folded(role),
        };
        if name.starts_with("pg_") || matches!(name.as_str(), "information_schema" | "annal") {
            let error = Error::report(Condition::ReservedName, format!("unacceptable schema name \"{name}\""));
            return Err(error.detailed("Names that begin with pg_, information_schema and annal are the system's."));
        }
        let created = self.changing().await?.create_schema(name.clone()).await;
        match self.changed(created).await {
            Ok(()) => {}
            Err(Error::Cluster(cluster::Error::SchemaExists(_))) if if_not_exists => {
                self.notice("NOTICE", "42P06", format!("schema \"{name}\" already exists, skipping"));
            }
            Err(error) => return Err(error),
        }
        Ok(Outcome::Done("CREATE SCHEMA".to_owned()))
    }

    /// With `cascade`, what is in it goes first.
    pub(super) async fn drop_schemas(
        &mut self,
        names: &[ObjectName],
        if_exists: bool,
        cascade: bool,
    ) -> Result<Outcome, Error> {
        for name in names {
            let name = schema_name(name)?;
            let changes = self.changing().await?;
            let dropped = match cascade {
                true => changes.drop_schema_with_contents(name.clone()),
                false => changes.drop_schema(name.clone()).map(|()| Vec::new()),
            };
            self.show_changes();
            match dropped {
                Ok(dropped) => {
                    for relation in dropped {
                        self.notice("NOTICE", "00000", format!("drop cascades to {relation}"));
                    }
                }
                Err(cluster::Error::NoSuchSchema(_)) if if_exists => {
                    self.notice("NOTICE", "00000", format!("schema \"{name}\" does not exist, skipping"));
                }
                Err(cluster::Error::SchemaNotEmpty { relations, .. }) => {
                    let what = format!("schema {name}");
                    return Err(depended_on(&format!("drop {what}"), &what, &relations));
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.changed(Ok(())).await?;
        Ok(Outcome::Done("DROP SCHEMA".to_owned()))
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

/// Completes the names of a statement, all but those of its own queries.
struct Names<'a> {
    catalog: &'a Catalog,
    path: &'a [String],
    temporary: Option<&'a str>,
    /// The queries around the name, outermost first.
    queries: Vec<Scope>,
}

/// The queries that a WITH names: each is seen by those after it, and by the query they belong to.
struct Scope {
    names: Vec<String>,
    /// How many of them are behind.
    seen: usize,
    /// With RECURSIVE each sees all.
    recursive: bool,
}

impl Names<'_> {
    fn look_for(&self, name: &mut ObjectName) {
        if let (Some(temporary), [ObjectNamePart::Identifier(schema), _]) = (self.temporary, &mut name.0[..])
            && folded(schema) == ALIAS
        {
            *schema = Ident::with_quote('"', temporary);
        }
        if let Some(found) = found(name, self.catalog, self.path) {
            complete(name, &found);
        }
    }

    fn is_own(&self, name: &ObjectName) -> bool {
        let [ObjectNamePart::Identifier(ident)] = &name.0[..] else { return false };
        let name = folded(ident);
        self.queries.iter().any(|scope| {
            let seen = if scope.recursive { scope.names.len() } else { scope.seen };
            scope.names[..seen].contains(&name)
        })
    }
}

impl VisitorMut for Names<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let with = query.with.as_ref();
        let names = with.map(|with| with.cte_tables.iter().map(|table| folded(&table.alias.name)).collect());
        let recursive = with.is_some_and(|with| with.recursive);
        self.queries.push(Scope { names: names.unwrap_or_default(), seen: 0, recursive });
        ControlFlow::Continue(())
    }

    /// The first queries within a query are those of its WITH, in order.
    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.queries.pop();
        if let Some(around) = self.queries.last_mut() {
            around.seen = around.names.len().min(around.seen + 1);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &mut ObjectName) -> ControlFlow<()> {
        if !self.is_own(name) {
            self.look_for(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        complete_register(expr, self.catalog, self.path);
        ControlFlow::Continue(())
    }
}
