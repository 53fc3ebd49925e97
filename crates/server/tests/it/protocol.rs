//! The protocol, byte by byte: what drivers never send, or hide when they do.

use std::time::Duration;

use futures::future::select_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::TestServer;

/// Rows for hours.
const ENDLESS_ROWS: &str = "SELECT x FROM generate_series(1, 1000000000000) t(x)";
/// The number of CancelRequest.
const CANCEL: i32 = 80_877_102;

/// A connection that sends what it is told to.
struct Raw {
    stream: TcpStream,
    /// Body of BackendKeyData.
    key: Vec<u8>,
}

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    kind: u8,
    body: Vec<u8>,
}

impl Answer {
    /// A field of an error.
    fn field(&self, key: u8) -> String {
        let mut fields = self.body.split(|byte| *byte == 0);
        let field = fields.find(|field| field.first() == Some(&key)).unwrap_or_default();
        String::from_utf8_lossy(field.get(1..).unwrap_or_default()).into_owned()
    }
}

impl Raw {
    /// Logs in.
    async fn connect(server: &TestServer) -> Raw {
        let (mut raw, answers) = Raw::log_in(server, "annal").await;
        raw.key = answers.iter().find(|answer| answer.kind == b'K').expect("a key is given").body.clone();
        raw
    }

    /// Logs in to a database, as far as that goes.
    async fn log_in(server: &TestServer, database: &str) -> (Raw, Vec<Answer>) {
        let mut raw = Raw { stream: TcpStream::connect(server.address()).await.unwrap(), key: Vec::new() };
        let pairs = format!("user\0annal\0database\0{database}\0\0");
        let mut packet = i32::try_from(pairs.len() + 8).unwrap().to_be_bytes().to_vec();
        packet.extend((3_i32 << 16).to_be_bytes());
        packet.extend(pairs.as_bytes());
        raw.stream.write_all(&packet).await.unwrap();
        let answers = raw.answers().await;
        (raw, answers)
    }

    async fn send(&mut self, messages: &[Vec<u8>]) {
        self.stream.write_all(&messages.concat()).await.unwrap();
    }

    /// The next message; `None` at the end of the connection.
    async fn answer(&mut self) -> Option<Answer> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header).await.ok()?;
        let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize - 4;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(Answer { kind: header[0], body })
    }

    /// Everything up to ReadyForQuery, or to the end of the connection.
    async fn answers(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        while let Some(answer) = self.answer().await {
            let kind = answer.kind;
            answers.push(answer);
            if kind == b'Z' {
                break;
            }
        }
        answers
    }

    async fn query(&mut self, sql: &str) -> String {
        self.send(&[query(sql)]).await;
        shown(&self.answers().await)
    }

    /// Sends messages and a Sync, and shows what comes.
    async fn exchange(&mut self, messages: &[Vec<u8>]) -> String {
        self.send(messages).await;
        self.send(&[message(b'S', b"")]).await;
        shown(&self.answers().await)
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    message.extend(body);
    message
}

fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

fn bind(portal: &str, statement: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
}

fn execute(portal: &str, rows_max: i32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), &[0], &rows_max.to_be_bytes()].concat())
}

/// One word for each answer: types, values of one column, tags, SQLSTATEs.
fn shown(answers: &[Answer]) -> String {
    let word = |answer: &Answer| match answer.kind {
        b'D' => String::from_utf8_lossy(&answer.body[6..]).into_owned(),
        b'C' => format!("[{}]", String::from_utf8_lossy(&answer.body[..answer.body.len() - 1])),
        b'E' => answer.field(b'C'),
        b'Z' => format!("Z{}", char::from(answer.body[0])),
        kind => char::from(kind).to_string(),
    };
    answers.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// A counter of `/metrics`.
async fn counter(server: &TestServer, name: &str) -> u64 {
    let (_, page) = server.http_get("/metrics").await;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no metric \"{name}\" in\n{page}")).parse().unwrap()
}

/// Waits until as many clients are connected.
async fn until_connected(server: &TestServer, clients: usize) {
    let expected = format!("annal_connections {clients}");
    while !server.http_get("/metrics").await.1.lines().any(|line| line == expected) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_messages_are_answered_and_harm_nobody_else() {
    let server = TestServer::start().await;
    let mut bystander = Raw::connect(&server).await;
    let bind_of_one = b"\0\0\0\0\0\x01\0\0\0\x08x".as_slice();
    let mut broken = vec![
        message(b'P', b""),
        message(b'P', b"\0select 1\0\0\x05"),
        message(b'B', b""),
        message(b'B', bind_of_one),
        message(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
        message(b'E', b"\0"),
        message(b'D', b""),
        message(b'D', b"X\0"),
        message(b'C', b""),
        message(b'Q', b"select 1"),
        message(b'Q', b"select 1\0more"),
        message(b'?', b""),
        message(b'p', b"secret\0"),
        b"Q\0\0\0\x03".to_vec(),
        b"Q\xff\xff\xff\xff".to_vec(),
    ];
    // The same cut in every place.
    let whole = [parse("a", "select $1"), bind("p", "a"), execute("p", 1)];
    for message_bytes in whole {
        broken.extend((5..message_bytes.len()).map(|end| message(message_bytes[0], &message_bytes[5..end])));
    }
    for bytes in broken {
        let mut raw = Raw::connect(&server).await;
        raw.send(std::slice::from_ref(&bytes)).await;
        let answers = raw.answers().await;
        assert_eq!(shown(&answers), "08P01", "{}", bytes.escape_ascii());
        assert_eq!(answers[0].field(b'S'), "FATAL");
    }
    assert_eq!(bystander.query("SELECT 1").await, "T 1 [SELECT 1] ZI");
    until_connected(&server, 1).await;
    assert!(!server.log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_beyond_the_limit_is_refused_before_it_is_read() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.send(&[b"Q\x7f\xff\xff\xff".to_vec()]).await;
    assert_eq!(shown(&raw.answers().await), "54000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_share_a_budget() {
    const LENGTH: usize = 60 << 20;
    let server = TestServer::start().await;
    let header = [&b"Q"[..], &u32::try_from(LENGTH).unwrap().to_be_bytes()].concat();
    // Nothing of the bodies comes: the room is taken for what is announced, and there is none for one of them.
    let mut waiting = Vec::new();
    for _ in 0..=(256 << 20) / LENGTH {
        let mut raw = Raw::connect(&server).await;
        raw.send(std::slice::from_ref(&header)).await;
        waiting.push(raw);
    }
    let (refused, at, others) = select_all(waiting.iter_mut().map(|raw| Box::pin(raw.answer()))).await;
    drop(others);
    assert_eq!(refused.expect("the refusal says why").field(b'C'), "53200");
    drop(waiting.remove(at));
    assert_eq!(Raw::connect(&server).await.query("SELECT 1").await, "T 1 [SELECT 1] ZI");
    drop(waiting);
    until_connected(&server, 0).await;
    let mut raw = Raw::connect(&server).await;
    let comment = format!("--{}", "-".repeat(1 << 20));
    assert_eq!(raw.query(&comment).await, "I ZI", "the room was given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_is_not_utf8_is_refused_and_never_stored() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.query("CREATE TABLE t (ts timestamptz NOT NULL, v text)").await;
    raw.send(&[message(b'Q', b"INSERT INTO t VALUES ('2024-01-01', 'a\xffb')\0")]).await;
    let answers = raw.answers().await;
    assert_eq!(shown(&answers), "22021 ZI");
    assert_eq!(answers[0].field(b'M'), "invalid byte sequence for encoding \"UTF8\": 0xff");
    let parse_bytes = message(b'P', b"\0SELECT '\xff'\0\0\0");
    assert_eq!(raw.exchange(&[parse_bytes, bind("", ""), execute("", 0)]).await, "22021 ZI");
    let bind_bytes = message(b'B', b"\0\0\0\0\0\x01\0\0\0\x03a\0b\0\0");
    let insert = parse("", "INSERT INTO t VALUES ('2024-01-01', $1)");
    assert_eq!(raw.exchange(&[insert, bind_bytes, execute("", 0)]).await, "1 22021 ZI");
    assert_eq!(raw.query("SELECT count(*) FROM t").await, "T 0 [SELECT 1] ZI");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_one_database() {
    let server = TestServer::start().await;
    let (_, answers) = Raw::log_in(&server, "nosuch").await;
    assert_eq!(shown(&answers), "3D000");
    assert_eq!(answers[0].field(b'M'), "database \"nosuch\" does not exist");
    let (mut raw, _) = Raw::log_in(&server, "postgres").await;
    assert_eq!(raw.query("SELECT 1").await, "T 1 [SELECT 1] ZI");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn portals_stop_at_their_limit_and_go_on() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    let messages = [
        parse("s", "SELECT x FROM generate_series(1, 5) t(x)"),
        bind("a", "s"),
        bind("b", "s"),
        execute("a", 2),
        execute("b", 1),
        execute("a", 2),
        execute("b", 0),
        execute("a", 2),
        execute("a", 2),
    ];
    assert_eq!(raw.exchange(&messages).await, "1 2 2 1 2 s 1 s 3 4 s 2 3 4 5 [SELECT 4] 5 [SELECT 1] [SELECT 0] ZI");
    assert_eq!(raw.exchange(&[execute("a", 0)]).await, "34000 ZI", "Sync ended their transaction");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn portals_end_with_their_transaction() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    let open = [parse("", "SELECT x FROM generate_series(1, 5) t(x)"), bind("p", ""), execute("p", 1)];
    raw.query("BEGIN").await;
    assert_eq!(raw.exchange(&open).await, "1 2 1 s ZT");
    assert_eq!(raw.exchange(&[execute("p", 1)]).await, "2 s ZT", "a Sync inside a block ends nothing");
    assert_eq!(raw.query("COMMIT").await, "[COMMIT] ZI");
    assert_eq!(raw.exchange(&[execute("p", 1)]).await, "34000 ZI");
    raw.query("BEGIN").await;
    raw.exchange(&open).await;
    assert_eq!(raw.query("SELECT 1/0").await.split(' ').next_back(), Some("ZE"));
    assert_eq!(raw.exchange(&[execute("p", 1)]).await, "25P02 ZE");
    raw.query("ROLLBACK").await;
    raw.query("BEGIN").await;
    raw.exchange(&open).await;
    let commit = [parse("c", "COMMIT"), bind("c", "c"), execute("c", 0), execute("p", 1)];
    assert_eq!(raw.exchange(&commit).await, "1 2 [COMMIT] 34000 ZI");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_is_skipped_from_its_error_to_its_sync() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.query("CREATE TABLE t (ts timestamptz NOT NULL)").await;
    let run = |sql: &str| [parse("", sql), bind("", ""), execute("", 0)].concat();
    let sync = message(b'S', b"");
    let insert = run("INSERT INTO t VALUES ('2024-01-01')");
    raw.send(&[insert.clone(), run("SELECT 1/0"), insert.clone(), sync.clone(), insert, sync]).await;
    assert_eq!(shown(&raw.answers().await), "1 2 [INSERT 0 1] 1 2 22012 ZI");
    assert_eq!(shown(&raw.answers().await), "1 2 [INSERT 0 1] ZI");
    assert_eq!(raw.query("SELECT count(*) FROM t").await, "T 1 [SELECT 1] ZI", "the first row went with its error");
    let unknown = raw.exchange(&[bind("", "nosuch")]).await;
    assert_eq!(unknown, "26000 ZI");
    assert_eq!(raw.exchange(&[parse("n", "SELECT 1"), parse("n", "SELECT 2")]).await, "1 42P05 ZI");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_answers_are_sent_before_sync() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    let columns: Vec<String> = (0..200).map(|n| format!("1 AS c{n}")).collect();
    raw.exchange(&[parse("wide", &format!("SELECT {}", columns.join(", ")))]).await;
    // No Sync and no Flush: it comes because there is so much of it.
    raw.send(&vec![message(b'D', b"Swide\0"); 100]).await;
    assert_eq!(raw.answer().await.map(|answer| answer.kind), Some(b't'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_statements_are_one_transaction() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.query("CREATE TABLE t (ts timestamptz NOT NULL)").await;
    let answers = raw.query("INSERT INTO t VALUES ('2024-01-01'); SELECT 1/0; SELECT 2").await;
    assert!(answers.starts_with("[INSERT 0 1] ") && answers.ends_with("22012 ZI"), "{answers}");
    assert_eq!(raw.query("SELECT count(*) FROM t; ; SELECT 2").await, "T 0 [SELECT 1] T 2 [SELECT 1] ZI");
    assert_eq!(raw.query(" ; -- nothing").await, "I ZI");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_right_key_stops_rows_on_their_way() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.send(&[query(ENDLESS_ROWS)]).await;
    let mut wrong = raw.key.clone();
    wrong[7] ^= 1;
    for key in [wrong, raw.key.clone()] {
        let mut other = TcpStream::connect(server.address()).await.unwrap();
        other.write_all(&[&16_i32.to_be_bytes()[..], &CANCEL.to_be_bytes(), &key].concat()).await.unwrap();
        // It is closed once it has been acted on.
        assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
        if key != raw.key {
            for _ in 0..100_000 {
                assert_ne!(raw.answer().await.expect("rows go on").kind, b'E');
            }
        }
    }
    let answers = raw.answers().await;
    let [error, ready] = &answers[answers.len() - 2..] else { unreachable!("two were asked for") };
    assert_eq!(error.field(b'M'), "canceling statement due to user request");
    assert_eq!((error.field(b'C').as_str(), ready.kind), ("57014", b'Z'));
    assert_eq!(raw.query("SELECT 1").await, "T 1 [SELECT 1] ZI");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_stops_rows_on_their_way_and_a_copy() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.query("CREATE TABLE t (ts timestamptz NOT NULL)").await;
    // Long enough for the statement after them.
    raw.query("SET statement_timeout = '1s'").await;
    for statement in [ENDLESS_ROWS, "COPY t FROM STDIN"] {
        raw.send(&[query(statement)]).await;
        let answers = raw.answers().await;
        let error = &answers[answers.len() - 2];
        assert_eq!(error.field(b'M'), "canceling statement due to statement timeout", "{statement}");
    }
    assert_eq!(raw.query("SELECT 1").await, "T 1 [SELECT 1] ZI");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_stops_its_statement() {
    let server = TestServer::start().await;
    let mut watching = Raw::connect(&server).await;
    watching.query("CREATE TABLE t (ts timestamptz NOT NULL)").await;
    for statement in [ENDLESS_ROWS, "SELECT count(*) FROM generate_series(1, 1000000000000)", "COPY t FROM STDIN"] {
        let mut raw = Raw::connect(&server).await;
        raw.send(&[query(statement)]).await;
        until_connected(&server, 2).await;
        drop(raw);
        until_connected(&server, 1).await;
    }
    assert_eq!(watching.query("SELECT count(*) FROM t").await, "T 0 [SELECT 1] ZI");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_ends_early_leaves_nothing() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.query("CREATE TABLE t (ts timestamptz NOT NULL, v bigint)").await;
    let data = |rows: &str| message(b'd', rows.as_bytes());
    let copy = query("COPY t FROM STDIN");
    raw.send(&[copy.clone(), data("2024-01-01\t1\n"), message(b'f', b"no more\0")]).await;
    let answers = raw.answers().await;
    assert_eq!(shown(&answers), "G 57014 ZI");
    assert_eq!(answers[1].field(b'M'), "COPY from stdin failed: no more");
    // What is still on its way when the error is found is swallowed.
    raw.send(&[copy.clone(), data("2024-01-01\tx\n"), data("2024-01-01\t2\n"), message(b'c', b"")]).await;
    assert_eq!(shown(&raw.answers().await), "G 22P02 ZI");
    assert_eq!(raw.query("SELECT count(*) FROM t").await, "T 0 [SELECT 1] ZI");
    raw.send(&[copy, data("2024-01-01\t1\n"), query("SELECT 1")]).await;
    assert_eq!(shown(&raw.answers().await), "G 08P01");
    assert_eq!(Raw::connect(&server).await.query("SELECT count(*) FROM t").await, "T 0 [SELECT 1] ZI");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_cannot_keep_the_server_from_ending() {
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "shutdown_grace = \"100 ms\"\n").unwrap();
    let mut server = TestServer::start_with(&["--config", config.path().to_str().unwrap()]).await;
    let mut raw = Raw::connect(&server).await;
    raw.send(&[query(ENDLESS_ROWS)]).await;
    // Rows come, and nobody takes the rest of them.
    assert_eq!(raw.answer().await.map(|answer| answer.kind), Some(b'T'));
    assert_eq!(server.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_a_flush_asked_for_and_nobody_reads_cannot_keep_the_server_from_ending() {
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "shutdown_grace = \"100 ms\"\n").unwrap();
    let mut server = TestServer::start_with(&["--config", config.path().to_str().unwrap()]).await;
    let mut raw = Raw::connect(&server).await;
    let columns: Vec<String> = (0..1000).map(|n| format!("1 AS c{n}")).collect();
    raw.exchange(&[parse("wide", &format!("SELECT {}", columns.join(", ")))]).await;
    // Some 20 KiB of an answer for each of these.
    let described = [message(b'D', b"Swide\0"), message(b'H', b"")].concat().repeat(10_000);
    let (_unread, mut write) = raw.stream.into_split();
    tokio::spawn(async move { write.write_all(&described).await });
    // It sends until the system takes no more.
    let mut sent = (0, counter(&server, "annal_bytes_sent_total").await);
    while sent.1 < 1 << 20 || sent.0 != sent.1 {
        sent = (sent.1, counter(&server, "annal_bytes_sent_total").await);
    }
    assert_eq!(server.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_portal_that_gave_no_rows_is_not_run_again() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.query("CREATE TABLE t (ts timestamptz NOT NULL)").await;
    let insert = [parse("", "INSERT INTO t VALUES ('2024-01-01')"), bind("p", ""), execute("p", 0)];
    raw.query("BEGIN").await;
    assert_eq!(raw.exchange(&insert).await, "1 2 [INSERT 0 1] ZT");
    raw.send(&[execute("p", 0), message(b'S', b"")]).await;
    let answers = raw.answers().await;
    assert_eq!(shown(&answers), "55000 ZE");
    assert_eq!(answers[0].field(b'M'), "portal \"p\" cannot be run");
    assert_eq!(raw.exchange(&[execute("p", 0)]).await, "25P02 ZE");
    raw.query("ROLLBACK").await;
    assert_eq!(raw.exchange(&[execute("p", 0)]).await, "34000 ZI");
    assert_eq!(raw.query("SELECT count(*) FROM t").await, "T 0 [SELECT 1] ZI");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_has_a_bounded_number_of_columns() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    let select = |columns: usize| format!("SELECT {}", vec!["1"; columns].join(", "));
    assert_eq!(raw.query(&select(1665)).await, "54011 ZI");
    let described = [parse("", &select(1665)), message(b'D', b"S\0")];
    assert_eq!(raw.exchange(&described).await, "1 54011 ZI");
    assert!(raw.query(&select(1664)).await.ends_with("[SELECT 1] ZI"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_data_is_counted_however_it_is_cut() {
    let server = TestServer::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.query("CREATE TABLE t (ts timestamptz NOT NULL, v bigint)").await;
    let line = "2024-01-01 00:00:00+00\t1\n";
    let rows = (3 << 20) / line.len();
    let (large, small) = (line.repeat(rows), line.repeat(2));
    let data = |rows: &str| message(b'd', rows.as_bytes());
    let (head, tail) = small.split_at(30);
    raw.send(&[query("COPY t FROM STDIN"), data(&large), data(head), data(tail), message(b'c', b"")]).await;
    assert_eq!(shown(&raw.answers().await), format!("G [COPY {}] ZI", rows + 2));
    assert_eq!(counter(&server, "annal_copy_rows_total").await, rows as u64 + 2);
    assert_eq!(counter(&server, "annal_copy_bytes_total").await, (large.len() + small.len()) as u64);
    let before = counter(&server, "annal_statement_seconds_count").await;
    raw.exchange(&[parse("", "SELECT 1"), bind("", ""), execute("", 0)]).await;
    raw.query("SELECT 1").await;
    assert_eq!(counter(&server, "annal_statement_seconds_count").await, before + 2);
}

/// The system asks a silent client's machine whether it is still there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_kept_alive() {
    const KEEPALIVE_TIMER: &str = "02";
    let server = TestServer::start().await;
    let raw = Raw::connect(&server).await;
    let ends = [server.address().port(), raw.stream.local_addr().unwrap().port()];
    let timer = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap();
        let mut own = lines.skip(1).filter(|line| [port(line[1]), port(line[2])] == ends);
        own.next().expect("the connection is there")[5][..2].to_owned()
    };
    let kept_alive = async {
        // Another timer may run while the last answer is on its way.
        while timer() != KEEPALIVE_TIMER {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), kept_alive).await.expect("the timer is set");
}
