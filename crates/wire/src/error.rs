//! What a client is told of an error: SQLSTATE, decided here in one match, and the fields of ErrorResponse.

use pgwire::messages::response::{ErrorResponse, NoticeResponse};
use query::{Condition, Notice, Report, Subject};

/// Bytes of a text in an error; clients and pgwire bound the whole message.
const TEXT_BYTES_MAX: usize = 6_000;

/// The five characters for a condition.
pub(crate) fn sqlstate(condition: Condition) -> &'static str {
    match condition {
        Condition::SyntaxError => "42601",
        Condition::UndefinedTable => "42P01",
        Condition::UndefinedColumn => "42703",
        Condition::UndefinedFunction => "42883",
        Condition::UndefinedObject => "42704",
        Condition::UndefinedSchema => "3F000",
        Condition::DuplicateTable => "42P07",
        Condition::DuplicateObject => "42710",
        Condition::DuplicateColumn => "42701",
        Condition::AmbiguousColumn => "42702",
        Condition::Grouping => "42803",
        Condition::DatatypeMismatch => "42804",
        Condition::IndeterminateDatatype => "42P18",
        Condition::InvalidTableDefinition => "42P16",
        Condition::DependentObjects => "2BP01",
        Condition::InvalidObjectDefinition => "42P17",
        Condition::UndefinedParameter => "42P02",
        Condition::UniqueViolation => "23505",
        Condition::CardinalityViolation => "21000",
        Condition::InvalidLimit => "2201W",
        Condition::InvalidOffset => "2201X",
        Condition::InvalidColumnReference => "42P10",
        Condition::WrongObjectType => "42809",
        Condition::InvalidTextRepresentation => "22P02",
        Condition::InvalidBinaryRepresentation => "22P03",
        Condition::BadCopyFormat => "22P04",
        Condition::InvalidDatetimeFormat => "22007",
        Condition::DatetimeOverflow => "22008",
        Condition::NumericOutOfRange => "22003",
        Condition::DivisionByZero => "22012",
        Condition::DuplicateSchema => "42P06",
        Condition::ReservedName => "42939",
        Condition::SequenceLimitExceeded => "2200H",
        Condition::GeneratedAlways => "428C9",
        Condition::ObjectNotInPrerequisiteState => "55000",
        Condition::NullValueNotAllowed => "22004",
        Condition::InvalidParameterValue => "22023",
        Condition::StringDataRightTruncation => "22001",
        Condition::Substring => "22011",
        Condition::InvalidEscapeSequence => "22025",
        Condition::InvalidRegularExpression => "2201B",
        Condition::InvalidLogarithm => "2201E",
        Condition::InvalidPower => "2201F",
        Condition::InvalidWidthBucket => "2201G",
        Condition::UntranslatableCharacter => "22P05",
        Condition::CharacterNotInRepertoire => "22021",
        Condition::NotNullViolation => "23502",
        Condition::CheckViolation => "23514",
        Condition::InFailedTransaction => "25P02",
        Condition::ReadOnlyTransaction => "25006",
        Condition::NoActiveTransaction => "25P01",
        Condition::InvalidSavepoint => "3B001",
        Condition::ActiveTransaction => "25001",
        Condition::UndefinedPreparedStatement => "26000",
        Condition::DuplicatePreparedStatement => "42P05",
        Condition::UndefinedCursor => "34000",
        Condition::DuplicateCursor => "42P03",
        Condition::DiskFull => "53100",
        Condition::OutOfMemory => "53200",
        Condition::LimitExceeded => "53400",
        Condition::ProgramLimitExceeded => "54000",
        Condition::TooManyColumns => "54011",
        Condition::QueryCanceled => "57014",
        Condition::AdminShutdown => "57P01",
        Condition::CannotConnectNow => "57P03",
        Condition::Io => "58030",
        Condition::DataCorrupted => "XX001",
        Condition::TransactionResolutionUnknown => "08007",
        Condition::SerializationFailure => "40001",
        Condition::FeatureNotSupported => "0A000",
        Condition::Internal => "XX000",
    }
}

/// Whether the connection goes on after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// It goes on.
    Error,
    /// It ends.
    Fatal,
}

/// An error on its way to the client.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) severity: Severity,
    code: &'static str,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    position: Option<usize>,
    context: Option<String>,
    subject: Option<Box<Subject>>,
}

impl Failure {
    /// An error the connection survives.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            context: None,
            subject: None,
        }
    }

    /// An error that ends the connection.
    pub(crate) fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Fatal, ..Self::new(code, message) }
    }

    /// The same, but it ends the connection.
    pub(crate) fn into_fatal(self) -> Self {
        Self { severity: Severity::Fatal, ..self }
    }

    /// A message that does not follow the protocol; the connection ends.
    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::fatal("08P01", message)
    }

    /// The statement was cancelled by CancelRequest.
    pub(crate) fn cancelled() -> Self {
        Self::new(sqlstate(Condition::QueryCanceled), "canceling statement due to user request")
    }

    /// The statement ran longer than `statement_timeout`.
    pub(crate) fn timed_out() -> Self {
        Self::new(sqlstate(Condition::QueryCanceled), "canceling statement due to statement timeout")
    }

    /// The server stops.
    pub(crate) fn shutdown() -> Self {
        Self::fatal(sqlstate(Condition::AdminShutdown), "terminating connection due to administrator command")
    }

    /// The server cannot serve anybody yet.
    pub(crate) fn starting() -> Self {
        Self::fatal(sqlstate(Condition::CannotConnectNow), "the database system is starting up")
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The message of ErrorResponse.
    pub(crate) fn response(&self) -> ErrorResponse {
        let severity = match self.severity {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        };
        let mut fields = vec![
            (b'S', severity.to_owned()),
            (b'V', severity.to_owned()),
            (b'C', self.code.to_owned()),
            (b'M', bounded(&self.message)),
        ];
        let optional = [(b'D', &self.detail), (b'H', &self.hint), (b'W', &self.context)];
        fields.extend(optional.into_iter().filter_map(|(key, text)| Some((key, bounded(text.as_ref()?)))));
        fields.extend(self.position.map(|position| (b'P', position.to_string())));
        if let Some(subject) = self.subject.as_deref() {
            let Subject { schema, table, column, constraint } = subject;
            let named =
                [(b's', Some(schema)), (b't', Some(table)), (b'c', column.as_ref()), (b'n', constraint.as_ref())];
            fields.extend(named.into_iter().filter_map(|(key, name)| Some((key, bounded(name?)))));
        }
        ErrorResponse::new(fields)
    }
}

impl From<query::Error> for Failure {
    fn from(error: query::Error) -> Self {
        let Report { condition, message, detail, hint, position, context, subject } = error.into_report();
        Self { severity: Severity::Error, code: sqlstate(condition), message, detail, hint, position, context, subject }
    }
}

/// The message of NoticeResponse.
pub(crate) fn notice(notice: &Notice) -> NoticeResponse {
    let mut fields = vec![
        (b'S', notice.severity.to_owned()),
        (b'V', notice.severity.to_owned()),
        (b'C', notice.code.to_owned()),
        (b'M', bounded(&notice.message)),
    ];
    fields.extend(notice.hint.as_ref().map(|hint| (b'H', bounded(hint))));
    NoticeResponse::new(fields)
}

fn bounded(text: &str) -> String {
    // A zero byte would end the field early.
    let text = text.replace('\0', "");
    match text.char_indices().find(|(at, _)| *at >= TEXT_BYTES_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
