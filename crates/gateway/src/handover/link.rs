//! The bytes between two processes of one Front End, and the sockets that travel with them.
//!
//! After the handover the same connection stays as a link: the new process sends what clients ask
//! it to cancel and it does not know, as ordinary cancel requests. Links to processes from before
//! are given away together with the listening sockets, so that each process that still has client
//! sessions hears of its cancels from whoever accepts clients now.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::spawn_local;
use wire::startup::{Startup, push_cancel, split};

use super::{Hello, Word};
use crate::house::House;
use crate::listener;

/// So many processes from before are remembered; usually there is one.
const MOST: usize = 16;
/// Those of clients, of commands, and the links.
const SOCKETS: usize = 2 + MOST;
/// The largest introduction.
const LARGEST: usize = 4096;

impl Word {
    fn byte(self) -> u8 {
        match self {
            Word::Sockets => b'O',
            Word::Stranger => b'N',
            Word::Ready => b'R',
            Word::Yours => b'Y',
            Word::Serving => b'S',
        }
    }

    fn of(byte: u8) -> io::Result<Word> {
        let all = [Word::Sockets, Word::Stranger, Word::Ready, Word::Yours, Word::Serving];
        all.into_iter().find(|word| word.byte() == byte).ok_or_else(senseless)
    }
}

fn senseless() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the other process says what is not understood")
}

pub(super) fn is_own_user(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own)
}

pub(super) async fn send_hello(stream: &mut UnixStream, hello: &Hello) -> io::Result<()> {
    let text = serde_json::to_vec(hello)?;
    let length = u16::try_from(text.len()).map_err(|_| senseless())?;
    stream.write_all(&[&length.to_be_bytes()[..], &text].concat()).await
}

pub(super) async fn receive_hello(stream: &mut UnixStream) -> io::Result<Hello> {
    let length = usize::from(stream.read_u16().await?);
    if length > LARGEST {
        return Err(senseless());
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
}

pub(super) async fn send(stream: &mut UnixStream, word: Word) -> io::Result<()> {
    stream.write_all(&[word.byte()]).await
}

pub(super) async fn receive(stream: &mut UnixStream) -> io::Result<Word> {
    Word::of(stream.read_u8().await?)
}

/// What travels with `Word::Sockets`.
pub(super) struct Sockets {
    pub clients: TcpListener,
    pub commands: TcpListener,
    pub links: Links,
}

/// Sends copies: the other process and this one then have the same sockets.
pub(super) async fn send_sockets(
    stream: &UnixStream,
    clients: &TcpListener,
    commands: &TcpListener,
    links: &Links,
) -> io::Result<()> {
    let links = links.alive();
    let mut sockets: Vec<BorrowedFd<'_>> = vec![clients.as_fd(), commands.as_fd()];
    sockets.extend(links.iter().map(|link| link.as_fd()));
    let write = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(senseless());
        }
        let word = [Word::Sockets.byte()];
        sendmsg(stream, &[IoSlice::new(&word)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    };
    stream.async_io(Interest::WRITABLE, write).await
}

/// `None`: the other process is that of another Front End.
///
/// # Errors
/// The other process is gone, or sends what is not understood.
pub(super) async fn receive_sockets(stream: &UnixStream) -> io::Result<Option<Sockets>> {
    let mut received = Vec::new();
    let read = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut word = [0];
        let parts = &mut [IoSliceMut::new(&mut word)];
        let message = recvmsg(stream, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if message.bytes == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(sockets) = part {
                received.extend(sockets);
            }
        }
        Word::of(word[0])
    };
    match stream.async_io(Interest::READABLE, read).await? {
        Word::Sockets => {}
        Word::Stranger => return Ok(None),
        Word::Ready | Word::Yours | Word::Serving => return Err(senseless()),
    }
    let mut received = received.into_iter();
    let mut listener = || received.next().ok_or_else(senseless).and_then(listening);
    let (clients, commands) = (listener()?, listener()?);
    let links = Links::default();
    for link in received {
        let link = std::os::unix::net::UnixStream::from(link);
        link.set_nonblocking(true)?;
        links.add(UnixStream::from_std(link)?);
    }
    Ok(Some(Sockets { clients, commands, links }))
}

fn listening(socket: OwnedFd) -> io::Result<TcpListener> {
    if !sockopt::socket_acceptconn(&socket)? {
        return Err(senseless());
    }
    let socket = std::net::TcpListener::from(socket);
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

/// Ways to the processes from before that still have client sessions.
#[derive(Debug, Default)]
pub struct Links(RefCell<Vec<Rc<UnixStream>>>);

impl Links {
    pub(super) fn add(&self, link: UnixStream) {
        let mut links = self.0.borrow_mut();
        if links.len() >= MOST {
            links.remove(0);
        }
        links.push(Rc::new(link));
    }

    /// They are another process's now.
    pub(super) fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    fn alive(&self) -> Vec<Rc<UnixStream>> {
        let mut links = self.0.borrow_mut();
        let mut byte = [0];
        links.retain(|link| match link.try_read(&mut byte) {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        });
        links.clone()
    }

    /// A client wants something cancelled that runs in none of this process's client sessions.
    pub fn cancel(&self, number: u32, key: &[u8]) {
        let mut request = Vec::new();
        push_cancel(&mut request, number, key);
        for link in self.alive() {
            // It fits into the system's buffer, or the other process hangs and no cancel helps.
            let _sent = link.try_write(&request);
        }
    }
}

/// Carries out what the process that took over is asked to cancel, until that one ends.
pub async fn pass_cancels(house: Rc<House>, mut link: UnixStream) {
    let mut pending = Vec::new();
    loop {
        match split(&pending) {
            Ok(Some((Startup::Cancel { process, key }, size))) => {
                let (house, key) = (Rc::clone(&house), key.to_vec());
                spawn_local(async move { listener::cancel(&house, process, &key).await });
                pending.drain(..size);
            }
            Ok(None) => match link.read_buf(&mut pending).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            Ok(Some(_)) | Err(_) => return,
        }
    }
}
