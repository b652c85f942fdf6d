//! A Front End is replaced, over real sockets: whole ones by each other, and one by hand.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::config::FrontEndFile;
use crate::lookup::LookupError;
use crate::tls::tests::Scratch;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = LocalSet::new();
    let test = tasks.run_until(test);
    runtime.block_on(async { timeout(Duration::from_secs(60), test).await }).unwrap();
}

fn config(dir: &Scratch, name: &str) -> FrontEnd {
    let text = format!(
        r#"
        name = "{name}"
        deployment = "demo"
        pool = "pool01"
        listen = "127.0.0.1:0"
        admin_listen = "127.0.0.1:0"
        state_dir = "{}"
        first = {{ name = "be1", address = "127.0.0.1:1" }}
        second = {{ name = "be2", address = "127.0.0.1:2" }}
        password_file = "/nowhere"
        "#,
        dir.0.display()
    );
    let file: FrontEndFile = toml::from_str(&text).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    FrontEnd { file, listen: any, admin_listen: any, password: String::new() }
}

fn verifiers(dir: &Scratch) -> Rc<Verifiers> {
    let ask = |_name, _patience| -> std::pin::Pin<Box<dyn Future<Output = _>>> {
        Box::pin(async { Err(LookupError::NoPrincipal) })
    };
    Verifiers::open(&dir.0, Box::new(ask))
}

/// A client that asks for TLS and is told that there is none.
fn is_answered(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut request = Vec::new();
    wire::startup::push_request(&mut request, wire::startup::SSL_REQUEST);
    stream.write_all(&request)?;
    let mut answer = [0];
    stream.read_exact(&mut answer)
}

/// Clients that come one after the other, until `end`; what each refused one was told.
fn clients(
    address: SocketAddr,
    end: &Arc<AtomicBool>,
    count: &Arc<AtomicUsize>,
) -> std::thread::JoinHandle<Vec<std::io::Error>> {
    let (end, count) = (Arc::clone(end), Arc::clone(count));
    std::thread::spawn(move || {
        let mut refused = Vec::new();
        while !end.load(Ordering::Relaxed) {
            refused.extend(is_answered(address).err());
            count.fetch_add(1, Ordering::Relaxed);
        }
        refused
    })
}

#[test]
fn no_client_is_refused_while_it_is_replaced_again_and_again() {
    let dir = Scratch::new("handover");
    run(async {
        // Nobody else gets this port: the first Front End takes the place of this one.
        let (mut first, links) = arrive(&config(&dir, "fe1")).await.unwrap();
        let address = first.clients.local_addr().unwrap();
        let store = verifiers(&dir);
        let mut before = spawn_local(async move {
            first.given_away(&store, &links).await;
        });
        let (end, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = [0, 1, 2].map(|_| clients(address, &end, &count));
        let mut last = None;
        for _ in 0..4 {
            let (stop, stopped) = oneshot::channel::<()>();
            let config = config(&dir, "fe1");
            let next = spawn_local(async move {
                let stopped = async { stopped.await.unwrap_or(()) };
                crate::run(config, stopped).await.unwrap();
            });
            // It ends by itself: it has no client left, and nobody told it to.
            before.await.unwrap();
            let served = count.load(Ordering::Relaxed);
            while count.load(Ordering::Relaxed) < served + 50 {
                tokio::task::yield_now().await;
            }
            before = next;
            // Of one that was replaced it is dropped when it has ended.
            drop(last.replace(stop));
        }
        end.store(true, Ordering::Relaxed);
        for thread in threads {
            // The last client may still wait for its answer, which is given here.
            let refused = tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
            assert!(refused.is_empty(), "{refused:?}");
        }
        drop(last);
        before.await.unwrap();
        assert!(is_answered(address).is_err(), "somebody still listens");
    });
}

/// Introduces itself as the next process; the way to the one that runs.
async fn come(config: &FrontEnd) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(claim::post_path(&config.file.state_dir)).await?;
    send_hello(&mut stream, &Hello::of(config)).await?;
    Ok(stream)
}

/// Comes until the process that runs has got over those who came before.
async fn offered(config: &FrontEnd) -> UnixStream {
    loop {
        if let Ok(stream) = come(config).await
            && receive_sockets(&stream).await.is_ok_and(|sockets| sockets.is_some())
        {
            return stream;
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_process_that_goes_away_before_it_serves_takes_nothing_with_it() {
    let dir = Scratch::new("handover");
    run(async {
        let config = config(&dir, "fe1");
        let (mut held, links) = arrive(&config).await.unwrap();
        let address = held.clients.local_addr().unwrap();
        let (mut entrance, _) = held.entrances();
        let store = verifiers(&dir);
        spawn_local(async move {
            held.given_away(&store, &links).await;
            panic!("given away to nobody");
        });
        for steps in 0..4 {
            let mut stream = match steps {
                0 => come(&config).await.unwrap(),
                _more => offered(&config).await,
            };
            if steps > 1 {
                send(&mut stream, Word::Ready).await.unwrap();
            }
            if steps > 2 {
                assert_eq!(receive(&mut stream).await.unwrap(), Word::Yours);
                assert!(Claim::take(&dir.0).unwrap().is_some(), "the lock is not free");
            }
            drop(stream);
            let (client, accepted) = tokio::join!(TcpStream::connect(address), entrance.accept());
            assert!(client.is_ok() && accepted.unwrap().is_ok(), "after {steps} steps");
            assert!(Claim::take(&dir.0).unwrap().is_none(), "the lock is free");
        }
    });
}

#[test]
fn the_sockets_are_not_given_to_another_front_end() {
    let dir = Scratch::new("handover");
    run(async {
        let (mut held, links) = arrive(&config(&dir, "fe1")).await.unwrap();
        let store = verifiers(&dir);
        let other = config(&dir, "fe2");
        let asked = tokio::select! {
            _ = held.given_away(&store, &links) => panic!("given away to another one"),
            arrived = arrive(&other) => arrived.err(),
        };
        assert!(matches!(asked, Some(HandoverError::Stranger { .. })), "{asked:?}");
    });
}

#[test]
fn who_waits_in_the_queue_is_accepted_by_the_next_process() {
    let dir = Scratch::new("handover");
    run(async {
        let config = config(&dir, "fe1");
        let (mut held, links) = arrive(&config).await.unwrap();
        let address = held.clients.local_addr().unwrap();
        let waits = TcpStream::connect(address).await.unwrap();
        let store = verifiers(&dir);
        let before = async {
            let after = held.given_away(&store, &links).await;
            drop(held);
            after
        };
        let next = async {
            let (mut held, links) = arrive(&config).await.unwrap();
            held.serving(&links).await;
            (held, links)
        };
        let (mut after, (held, links)) = tokio::join!(before, next);
        let accepted = held.entrances().0.accept().await.unwrap().unwrap();
        assert_eq!(accepted.peer_addr().unwrap(), waits.local_addr().unwrap());
        // The process before is still there: cancels reach it.
        links.cancel(7, &[1, 2, 3, 4]);
        let mut request = [0; 16];
        tokio::io::AsyncReadExt::read_exact(&mut after, &mut request).await.unwrap();
        assert!(matches!(
            wire::startup::split(&request),
            Ok(Some((wire::startup::Startup::Cancel { process: 7, key: [1, 2, 3, 4] }, 16)))
        ));
    });
}
