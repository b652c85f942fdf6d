//! A server that does what a test wants, and remembers what it was asked.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::spawn_local;
use wire::frame::{push, split};
use wire::message::Transaction;
use wire::server::{
    Report, Severity, push_authentication_ok, push_backend_key_data, push_error,
    push_parameter_status, push_ready_for_query,
};

/// From where on it accepts and never answers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Silent {
    #[default]
    Never,
    FromTheStart,
    AfterTheLogIn,
}

/// What it was asked, on which connection.
pub type Asked = (u32, String);

#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    pub silent: Cell<Silent>,
    /// What it says of `synchronous_commit` and `client_min_messages`.
    pub settings: Cell<[&'static str; 2]>,
    /// What it says of a client session when it is asked.
    pub session: RefCell<Vec<[&'static str; 2]>>,
    /// Refuses the statements of the gateway's own that set something.
    pub refuses: Cell<bool>,
    pub asked: RefCell<Vec<Asked>>,
    /// Connections of sessions, and those that have been closed.
    pub opened: Cell<u32>,
    pub closed: Cell<u32>,
    pub cancels: Cell<u32>,
    /// Bytes of large answers that it could write.
    pub written: Cell<usize>,
    /// Statements that wait are answered; cancels that came are done.
    pub answers: watch::Sender<bool>,
    pub cancelled: watch::Sender<bool>,
}

impl Server {
    pub async fn start() -> Rc<Server> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Rc::new(Server {
            address: listener.local_addr().unwrap(),
            silent: Cell::default(),
            settings: Cell::new(["on", "notice"]),
            session: RefCell::default(),
            refuses: Cell::default(),
            asked: RefCell::default(),
            opened: Cell::default(),
            closed: Cell::default(),
            cancels: Cell::default(),
            written: Cell::default(),
            answers: watch::Sender::new(false),
            cancelled: watch::Sender::new(true),
        });
        let accepts = Rc::clone(&server);
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = Rc::clone(&accepts);
                spawn_local(async move {
                    // However it ends, the gateway has closed it.
                    let _ended = server.serve(stream).await;
                });
            }
        });
        server
    }

    /// Whether it was asked this, and on which connection.
    pub fn heard(&self, text: &str) -> Option<u32> {
        let asked = self.asked.borrow();
        asked.iter().find(|(_, found)| found == text).map(|(process, _)| *process)
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut length = [0; 8];
        stream.read_exact(&mut length).await?;
        let [_, _, _, size, code @ ..] = length;
        let mut rest = vec![0; usize::from(size) - 8 + 256 * usize::from(length[2])];
        stream.read_exact(&mut rest).await?;
        if u32::from_be_bytes(code) == wire::startup::CANCEL_REQUEST {
            self.cancels.set(self.cancels.get() + 1);
            let mut cancelled = self.cancelled.subscribe();
            // The sender is this server's own.
            drop(cancelled.wait_for(|done| *done).await);
            return Ok(());
        }
        self.opened.set(self.opened.get() + 1);
        let process = self.opened.get();
        let ended = self.converse(&mut stream, process).await;
        self.closed.set(self.closed.get() + 1);
        ended
    }

    async fn converse(&self, stream: &mut TcpStream, process: u32) -> std::io::Result<()> {
        let mut out = Vec::new();
        if self.silent.get() == Silent::FromTheStart {
            return listen_only(stream).await;
        }
        push_authentication_ok(&mut out);
        push_parameter_status(&mut out, "client_encoding", "UTF8");
        push_backend_key_data(&mut out, process, &[1, 2, 3, 4]);
        push_ready_for_query(&mut out, Transaction::Idle);
        stream.write_all(&out).await?;
        if self.silent.get() == Silent::AfterTheLogIn {
            return listen_only(stream).await;
        }
        let (mut unread, mut bound) = (Vec::new(), String::new());
        loop {
            let mut out = Vec::new();
            let mut at = 0;
            while let Ok(Some(frame)) = split(&unread[at..], usize::MAX) {
                at += frame.size();
                let (tag, body) = (frame.tag, frame.body.to_vec());
                match tag {
                    b'Q' => self.query(stream, process, &body, &mut out).await?,
                    b'B' => bound = String::from_utf8_lossy(&body[1..]).into_owned(),
                    _other => {}
                }
                reply(tag, &bound, &mut out);
            }
            unread.drain(..at);
            stream.write_all(&out).await?;
            let mut chunk = [0; 8192];
            match stream.read(&mut chunk).await? {
                0 => return Ok(()),
                count => unread.extend_from_slice(&chunk[..count]),
            }
        }
    }

    async fn query(
        &self,
        stream: &mut TcpStream,
        process: u32,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> std::io::Result<()> {
        let text = String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(body)).into_owned();
        self.asked.borrow_mut().push((process, text.clone()));
        let own_order = text.starts_with("SET client_min_messages");
        if self.refuses.get() && own_order {
            let report = Report::new(Severity::Error, "42501", "it is not to be set");
            push_error(out, &report);
        } else if text.contains("pg_catalog.pg_listening_channels()") {
            for [kind, name] in self.session.borrow().iter() {
                row(out, &[kind, name, ""]);
            }
        } else if text.contains("current_setting('client_min_messages')") {
            row(out, &self.settings.get());
        } else if text == "select 'wait'" {
            let mut answers = self.answers.subscribe();
            let mut byte = [0];
            tokio::select! {
                _go_on = answers.wait_for(|answers| *answers) => {}
                // The gateway sends nothing meanwhile: this is the end of the connection.
                read = stream.peek(&mut byte) => {
                    read?;
                    return Err(std::io::ErrorKind::ConnectionReset.into());
                }
            }
        } else if let Some(count) = text.strip_prefix("select 'big' -- ") {
            self.write_much(stream, count.parse().unwrap()).await?;
        } else {
            row(out, &["1"]);
        }
        push(out, b'C', |body| body.extend_from_slice(b"SELECT 1\0"));
        push_ready_for_query(out, Transaction::Idle);
        Ok(())
    }

    /// One row of so many bytes.
    async fn write_much(&self, stream: &mut TcpStream, count: usize) -> std::io::Result<()> {
        let length = |more: usize| u32::try_from(count + more).unwrap().to_be_bytes();
        let head = [&b"D"[..], &length(10)[..], &[0, 1], &length(0)[..]].concat();
        stream.write_all(&head).await?;
        let chunk = [b'x'; 4096];
        let mut left = count;
        while left > 0 {
            let wrote = stream.write(&chunk[..left.min(chunk.len())]).await?;
            left -= wrote;
            self.written.set(self.written.get() + wrote);
        }
        Ok(())
    }
}

/// Takes everything, answers nothing.
async fn listen_only(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut chunk = [0; 8192];
    while stream.read(&mut chunk).await? > 0 {}
    Ok(())
}

/// The answer to a message of the extended protocol.
fn reply(tag: u8, bound: &str, out: &mut Vec<u8>) {
    let answer: u8 = match tag {
        b'P' => b'1',
        b'B' => b'2',
        b'C' => b'3',
        b'D' => b'n',
        b'E' if bound.starts_with("backstay_") => {
            row(out, &["77", "read committed"]);
            return push(out, b'C', |body| body.extend_from_slice(b"SELECT 1\0"));
        }
        b'E' => return push(out, b'C', |body| body.extend_from_slice(b"INSERT 0 1\0")),
        b'S' => return push_ready_for_query(out, Transaction::Idle),
        _other => return,
    };
    push(out, answer, |_| {});
}

fn row(out: &mut Vec<u8>, values: &[&str]) {
    push(out, b'D', |body| {
        body.extend_from_slice(&u16::try_from(values.len()).unwrap().to_be_bytes());
        for value in values {
            body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
            body.extend_from_slice(value.as_bytes());
        }
    });
}
