//! What can go wrong with a statement, in PostgreSQL's terms.

use datafusion::error::DataFusionError;
use event::TableDefinition;

/// What kind of error a client is told. `wire` gives each its SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// 42601
    SyntaxError,
    /// 42P01
    UndefinedTable,
    /// 42703
    UndefinedColumn,
    /// 42883
    UndefinedFunction,
    /// 42704
    UndefinedObject,
    /// 42710
    DuplicateObject,
    /// 42P06
    DuplicateSchema,
    /// 42939
    ReservedName,
    /// 3F000
    UndefinedSchema,
    /// 42P07
    DuplicateTable,
    /// 42701
    DuplicateColumn,
    /// 42702
    AmbiguousColumn,
    /// 42803
    Grouping,
    /// 42804
    DatatypeMismatch,
    /// 42P18
    IndeterminateDatatype,
    /// 42P16
    InvalidTableDefinition,
    /// 2BP01
    DependentObjects,
    /// 42P17
    InvalidObjectDefinition,
    /// 42P02
    UndefinedParameter,
    /// 23505
    UniqueViolation,
    /// 21000
    CardinalityViolation,
    /// 2201W
    InvalidLimit,
    /// 2201X
    InvalidOffset,
    /// 42P10
    InvalidColumnReference,
    /// 42809
    WrongObjectType,
    /// 22P02
    InvalidTextRepresentation,
    /// 22P03
    InvalidBinaryRepresentation,
    /// 22P04
    BadCopyFormat,
    /// 22007
    InvalidDatetimeFormat,
    /// 22008
    DatetimeOverflow,
    /// 22003
    NumericOutOfRange,
    /// 22012
    DivisionByZero,
    /// 22004
    NullValueNotAllowed,
    /// 2200H
    SequenceLimitExceeded,
    /// 428C9
    GeneratedAlways,
    /// 22023
    InvalidParameterValue,
    /// 22001
    StringDataRightTruncation,
    /// 22011
    Substring,
    /// 22025
    InvalidEscapeSequence,
    /// 2201B
    InvalidRegularExpression,
    /// 2201E
    InvalidLogarithm,
    /// 2201F
    InvalidPower,
    /// 2201G
    InvalidWidthBucket,
    /// 22P05
    UntranslatableCharacter,
    /// 22021
    CharacterNotInRepertoire,
    /// 23502
    NotNullViolation,
    /// 23514
    CheckViolation,
    /// 55000
    ObjectNotInPrerequisiteState,
    /// 25P02
    InFailedTransaction,
    /// 25001
    ActiveTransaction,
    /// 25P01
    NoActiveTransaction,
    /// 3B001
    InvalidSavepoint,
    /// 25006
    ReadOnlyTransaction,
    /// 26000
    UndefinedPreparedStatement,
    /// 42P05
    DuplicatePreparedStatement,
    /// 34000
    UndefinedCursor,
    /// 42P03
    DuplicateCursor,
    /// 53100
    DiskFull,
    /// 53200
    OutOfMemory,
    /// 53400
    LimitExceeded,
    /// 54000
    ProgramLimitExceeded,
    /// 54011
    TooManyColumns,
    /// 57014
    QueryCanceled,
    /// 57P01
    AdminShutdown,
    /// 57P03
    CannotConnectNow,
    /// 58030
    Io,
    /// XX001
    DataCorrupted,
    /// 08007
    TransactionResolutionUnknown,
    /// 40001
    SerializationFailure,
    /// 0A000
    FeatureNotSupported,
    /// XX000
    Internal,
}

/// What a client is told of an error, all but the SQLSTATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The kind.
    pub condition: Condition,
    /// Primary message: lower case, no full stop.
    pub message: String,
    /// More facts.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Character position in the statement, from 1.
    pub position: Option<usize>,
    /// Where, for COPY: `COPY flights, line 7, column dep_delay: "x"`.
    pub context: Option<String>,
    /// What of which table refused a row, for drivers that look at more than the message.
    pub subject: Option<Box<Subject>>,
}

/// The part of a table whose rule a row breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The schema of the table.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// The column, when it is that which takes no NULL.
    pub column: Option<String>,
    /// The constraint, when it has a name.
    pub constraint: Option<String>,
}

impl Report {
    /// One with nothing but its kind and message.
    pub(crate) fn new(condition: Condition, message: impl Into<String>) -> Report {
        let message = message.into();
        Report { condition, message, detail: None, hint: None, position: None, context: None, subject: None }
    }

    /// The same about a column.
    pub(crate) fn of_column(mut self, table: &TableDefinition, column: &str) -> Report {
        let (schema, name) = (table.namespace.clone(), table.name.clone());
        let subject = Subject { schema, table: name, column: Some(column.to_owned()), constraint: None };
        self.subject = Some(Box::new(subject));
        self
    }

    /// The same about a constraint of the table `name` in `schema`.
    pub(crate) fn of_constraint(mut self, (schema, name): (&str, &str), constraint: &str) -> Report {
        let (schema, table) = (schema.to_owned(), name.to_owned());
        let subject = Subject { schema, table, column: None, constraint: Some(constraint.to_owned()) };
        self.subject = Some(Box::new(subject));
        self
    }

    /// The same with more facts.
    pub(crate) fn detailed(mut self, detail: impl Into<String>) -> Report {
        self.detail = Some(detail.into());
        self
    }
}

/// What to do about a node that is behind.
const STALE_HINT: &str =
    "Read from another node, or let the session be content with less: SET annal.consistency or annal.max_staleness.";
/// What to do about a group that nobody leads.
const NO_LEADER_HINT: &str = "Most of the nodes that vote must run and reach each other: see annal.nodes. It was not done, and can be tried again.";
/// What to do about a statement whose fate is unknown.
const UNKNOWN_HINT: &str = "It may be done already, or be done later: look for what it does before it is sent again.";
/// What to do about a full disk.
const DISK_FULL_HINT: &str = "Free some space on the disk that holds the data directory; writes resume by themselves.";

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The statement's fault, or a limit: reported to the client as it stands.
    #[error("{}", .0.message)]
    Reported(Box<Report>),
    /// The layer below failed.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
}

impl Error {
    /// An error with nothing but its kind and message.
    pub(crate) fn report(condition: Condition, message: impl Into<String>) -> Error {
        Report::new(condition, message).into()
    }

    /// What the client is told.
    pub fn into_report(self) -> Report {
        let error = match self {
            Error::Reported(report) => return *report,
            Error::Cluster(error) => error,
        };
        let condition = match &error {
            cluster::Error::TableExists(_) => Condition::DuplicateTable,
            cluster::Error::SchemaExists(_) => Condition::DuplicateSchema,
            cluster::Error::NoSuchSchema(_) => Condition::UndefinedSchema,
            cluster::Error::SchemaNotEmpty { .. } => Condition::DependentObjects,
            cluster::Error::CircularView(_) => Condition::InvalidObjectDefinition,
            cluster::Error::IsRead { .. } => Condition::DependentObjects,
            cluster::Error::NoSuchTable(_) => Condition::UndefinedTable,
            cluster::Error::SchemaChanged(_) | cluster::Error::Conflict => Condition::SerializationFailure,
            cluster::Error::Overloaded(_) => Condition::OutOfMemory,
            cluster::Error::DiskFull(_) => Condition::DiskFull,
            cluster::Error::Limit(_) | cluster::Error::Excess { .. } => Condition::LimitExceeded,
            cluster::Error::NotInState { .. } => Condition::ObjectNotInPrerequisiteState,
            cluster::Error::ShuttingDown(_)
            | cluster::Error::Removed(_)
            | cluster::Error::Mistaken(_)
            | cluster::Error::PutBack { .. } => Condition::AdminShutdown,
            cluster::Error::Unknown(_) => Condition::TransactionResolutionUnknown,
            cluster::Error::Storage(storage::Error::Corrupt { .. }) => Condition::DataCorrupted,
            cluster::Error::DataDirectory(_) | cluster::Error::Storage(_) => Condition::Io,
            cluster::Error::Replication(_) | cluster::Error::Peer(_) | cluster::Error::Stale(_) => {
                Condition::CannotConnectNow
            }
        };
        let message = error.to_string();
        let hint = match &error {
            cluster::Error::NotInState { hint, .. } => Some(hint.clone()),
            cluster::Error::Excess { retry_ms } => Some(format!("Try again in {retry_ms} ms.")),
            cluster::Error::Stale(_) => Some(STALE_HINT.to_owned()),
            cluster::Error::Replication(_) => Some(NO_LEADER_HINT.to_owned()),
            cluster::Error::Unknown(_) => Some(UNKNOWN_HINT.to_owned()),
            _ => (condition == Condition::DiskFull).then(|| DISK_FULL_HINT.to_owned()),
        };
        Report { hint, ..Report::new(condition, message) }
    }

    /// The error inside a plan. Operators may share it between their outputs, where only a report survives.
    pub(crate) fn in_plan(error: cluster::Error) -> DataFusionError {
        DataFusionError::External(Box::new(Error::Reported(Box::new(Error::Cluster(error).into_report()))))
    }

    /// The same with more facts.
    pub(crate) fn detailed(mut self, detail: impl Into<String>) -> Error {
        if let Error::Reported(report) = &mut self {
            report.detail = Some(detail.into());
        }
        self
    }

    /// An error with a hint.
    pub(crate) fn hinted(condition: Condition, message: impl Into<String>, hint: impl Into<String>) -> Error {
        Report { hint: Some(hint.into()), ..Report::new(condition, message) }.into()
    }
}

impl From<Report> for Error {
    fn from(report: Report) -> Error {
        Error::Reported(Box::new(report))
    }
}

impl From<Box<Report>> for Error {
    fn from(report: Box<Report>) -> Error {
        Error::Reported(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_know_what_became_of_a_statement_is_told_what_to_do() {
        let report = Error::Cluster(cluster::Error::Unknown("no majority has answered".into())).into_report();
        assert_eq!(report.condition, Condition::TransactionResolutionUnknown);
        assert_eq!(report.message, "the outcome of the statement is unknown: no majority has answered");
        assert_eq!(report.hint.as_deref(), Some(UNKNOWN_HINT));
    }
}
