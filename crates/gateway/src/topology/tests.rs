//! A Front End's copy, with a partner of the store's pool that the test plays.

use std::path::PathBuf;
use std::time::Duration;

use protocol::admin::{
    Request, Response, TopologyAnswer, TopologyCopy, TopologyRequest, TopologyStanding,
};
use protocol::frame::Kind;
use protocol::handshake::{Hello, Introduction};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::Keeper;
use crate::config::{FrontEnd, OwnFile};
use crate::papers::Papers;
use crate::route::Pool;
use crate::route::line::Line;

const PATIENCE: Duration = Duration::from_secs(20);

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let name = format!("backstay-copy-{name}-{}", std::process::id());
        let place = Place(std::env::temp_dir().join(name));
        let _ = std::fs::remove_dir_all(&place.0);
        std::fs::create_dir_all(&place.0).unwrap();
        std::fs::write(place.0.join("front-end.password"), "secret").unwrap();
        place
    }

    fn own(&self) -> OwnFile {
        let text = format!(
            "name = \"fe1\"\ndeployment = \"test\"\nadmin_listen = \"127.0.0.1:0\"\n\
             state_dir = \"{}\"\n",
            self.0.display()
        );
        toml::from_str(&text).unwrap()
    }

    fn keeper(&self) -> Keeper {
        Keeper::open(self.own(), Papers::default())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn copy(version: u64, first: u16, second: u16, more: &str) -> TopologyCopy {
    let document = format!(
        "format = 1\ndeployment = \"test\"\ncentral_management = \"orders\"\n\
         [[server]]\nname = \"be1\"\nhost = \"127.0.0.1\"\nport = {first}\n\
         state_dir = \"/var/lib/one\"\nroot = \"/srv/one\"\n\
         [[server]]\nname = \"be2\"\nhost = \"127.0.0.1\"\nport = {second}\n\
         state_dir = \"/var/lib/two\"\nroot = \"/srv/two\"\n\
         [[pool]]\nname = \"orders\"\nprincipal = \"be1\"\nmirror = \"be2\"\n\
         port_on = {{ be2 = 5433 }}\n\
         [[pool.front_end]]\nname = \"fe1\"\nhost = \"127.0.0.1\"\n{more}"
    );
    copies::seal(version, 1, "ann", "", document)
}

fn in_local_set(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test());
}

async fn hand(keeper: &Keeper, copy: TopologyCopy) {
    let header = copy.header.clone();
    let handed = keeper.answer(TopologyRequest::Hand { copy }).await;
    assert_eq!(handed, Response::Topology(TopologyAnswer::Handed { header }));
}

/// Lets the Front End in, and hears its question.
async fn asked(listener: &TcpListener) -> (Line, TopologyStanding) {
    let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut line = Line::new(Box::new(stream));
    let hello = Hello::from_bytes(&line.next().await.unwrap().payload).unwrap();
    let me = Introduction {
        deployment: "test".to_owned(),
        host: "be1".to_owned(),
        run: 1,
        software: "0".to_owned(),
    };
    let welcome = me.answer(&hello, |_| false).unwrap();
    line.send(Kind::Welcome, &welcome.to_bytes()).await.unwrap();
    let standing = follows(&mut line).await;
    (line, standing)
}

async fn follows(line: &mut Line) -> TopologyStanding {
    let frame = timeout(PATIENCE, line.next()).await.unwrap().unwrap();
    match Request::from_bytes(&frame.payload).unwrap() {
        Request::Topology(TopologyRequest::Follow { standing, .. }) => standing,
        other => panic!("asked {other:?}"),
    }
}

#[test]
fn a_front_end_gets_its_first_copy_by_hand_and_pulls_the_next_ones() {
    in_local_set(async || {
        let place = Place::new("pulls");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let keeper = place.keeper();
        assert_eq!(keeper.wanted(), None);
        hand(&keeper, copy(1, port, 1, "")).await;
        assert_eq!(keeper.wanted().unwrap().pool, "orders");
        let (mut line, standing) = asked(&listener).await;
        assert_eq!((standing.process.as_str(), standing.have), ("fe1", 1));
        let second = copy(2, port, 1, "hold_s = 30\n");
        let newer = Response::Topology(TopologyAnswer::Newer { copy: second.clone() });
        line.send(Kind::Response, &newer.to_bytes()).await.unwrap();
        assert_eq!(follows(&mut line).await.have, 2);
        assert_eq!(keeper.wanted().unwrap().times.hold_ms, 30_000);
        drop(line);
        drop(listener);
        let again = place.keeper();
        assert_eq!(again.standing().digest, Some(second.header.digest));
        assert!(again.wanted().is_some(), "nobody else is needed for that");
    });
}

#[test]
fn other_servers_are_followed_at_once_and_the_rest_waits_for_a_restart() {
    in_local_set(async || {
        let place = Place::new("servers");
        let keeper = place.keeper();
        hand(&keeper, copy(1, 1, 2, "")).await;
        let config = FrontEnd::try_from(keeper.wanted().unwrap()).unwrap();
        let pool = Pool::follow(&config, &Papers::default());
        keeper.runs(&config, &pool);
        assert_eq!(keeper.standing().problem, None);
        hand(&keeper, copy(2, 1, 3, "")).await;
        let [first, second] = pool.members();
        assert_eq!(
            (first.address.as_str(), second.address.as_str()),
            ("127.0.0.1:1", "127.0.0.1:3")
        );
        assert_eq!(keeper.standing().problem, None);
        hand(&keeper, copy(3, 1, 3, "hold_s = 30\n")).await;
        assert!(keeper.standing().problem.unwrap().contains("from the next start on"));
        let other = copy(4, 1, 3, "").document.replace("\"fe1\"", "\"fe2\"");
        hand(&keeper, copies::seal(4, 1, "ann", "", other)).await;
        assert!(keeper.standing().problem.unwrap().contains("does not name"));
    });
}
