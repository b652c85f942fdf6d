//! The published document in real processes: handed out, published, pulled, and kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use agent::config::{Server, ServerFile, Witness, WitnessFile};
use agent::peers::{Channel, Transport};
use protocol::admin::{
    Request, Response, TopologyAnswer, TopologyCopy, TopologyHeader, TopologyKind,
    TopologyReplication, TopologyRequest, TopologyShown, TopologySource,
};
use protocol::handshake::{Introduction, Role as Wants};
use trust::{Again, Book, Credentials, Expected, Key, Place, Role, Subject};

use crate::pool::{Line, PATIENCE};
use crate::{cluster, deadline};

const CHILD: &str = "BACKSTAY_TEST_TOPOLOGY_CHILD";
const POOL: &str = "orders";
const SECOND: &str = "billing";
/// Asking now and then would take longer: a question is held for five seconds.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn child_that_works_from_its_copy() {
    let Some(config) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if config.ends_with("wit0.toml") {
        let config = Witness::load(&config).unwrap();
        runtime.block_on(agent::witness::run(config, std::future::pending())).unwrap();
    } else {
        let config = Server::load(&config).unwrap();
        runtime.block_on(agent::server::run(config, std::future::pending())).unwrap();
    }
}

const NAMES: [&str; 3] = ["be0", "be1", "wit0"];

/// Two servers and a witness that know nothing but their names.
struct Deployment {
    dir: PathBuf,
    ports: [u16; 3],
    /// Of both servers: that of the first pool, and of the second.
    postgres: [u16; 4],
    processes: [Option<Child>; 3],
    /// Who the test is; `None`: there are no certificates.
    administrator: Option<Credentials>,
}

impl Deployment {
    fn new(name: &str) -> Deployment {
        let dir = cluster::scratch(&format!("{}-topology-{name}", std::process::id()));
        let ports = [(); 3].map(|()| cluster::free_port());
        let postgres = [(); 4].map(|()| cluster::free_port());
        let processes = [const { None }; 3];
        let deployment = Deployment { dir, ports, postgres, processes, administrator: None };
        for number in 0..3 {
            deployment.prepare(number);
        }
        deployment
    }

    /// Everybody has a certificate, and nobody a password.
    fn with_certificates(name: &str) -> Deployment {
        let mut deployment = Deployment::new(name);
        let now = SystemTime::now();
        let book = Book::init(&deployment.dir.join("authority"), "test", now).unwrap();
        let certify = |place: &Place, role, name: &str| {
            let key = Key::generate().unwrap();
            let subject = Subject { role, name: name.to_owned(), hosts: Vec::new() };
            let request = key.request(name).unwrap();
            let certificate = book.issue(subject, &request, Again::Replace, now).unwrap();
            place.install(&key, &certificate, book.authority().der()).unwrap();
        };
        for (number, role) in [(0, Role::Server), (1, Role::Server), (2, Role::Witness)] {
            certify(&Place::new(deployment.state_dir(number).join("trust")), role, NAMES[number]);
            if number < 2 {
                fs::remove_file(deployment.files(number).join("secret")).unwrap();
            }
        }
        let place = Place::new(deployment.dir.join("carol"));
        certify(&place, Role::Administrator, "carol");
        deployment.administrator = Some(place.load().unwrap());
        deployment
    }

    fn files(&self, number: usize) -> PathBuf {
        self.dir.join(NAMES[number]).join(POOL).join("backstay")
    }

    /// A connection to a process; tried until it listens.
    async fn line(&self, number: usize) -> Line {
        let Some(administrator) = &self.administrator else {
            return Line::open(self.ports[number]).await;
        };
        let roles = &[Role::Server, Role::Witness];
        let expected = Expected { name: Some(NAMES[number].to_owned()), roles };
        let config = administrator.client(expected).unwrap();
        let begun = Instant::now();
        let transport = loop {
            match Transport::dial("127.0.0.1", self.ports[number], PATIENCE).await {
                Ok(transport) => break transport,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "nobody listens: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let mut channel = Channel::new(transport.secure(config).await.unwrap());
        let me = Introduction {
            deployment: "test".to_owned(),
            host: "carol".to_owned(),
            run: 1,
            software: "test".to_owned(),
        };
        channel.introduce(&me.hello(Wants::Administrator, NAMES[number])).await.unwrap();
        Line::over(channel)
    }

    fn state_dir(&self, number: usize) -> PathBuf {
        self.dir.join(NAMES[number]).join("state")
    }

    fn prepare(&self, number: usize) {
        let (name, deployment) = (NAMES[number].to_owned(), "test".to_owned());
        let listen = format!("127.0.0.1:{}", self.ports[number]);
        let state_dir = self.state_dir(number);
        fs::create_dir_all(&state_dir).unwrap();
        let text = if number == 2 {
            let (pools, retired) = (Vec::new(), Default::default());
            let file = WitnessFile { name, deployment, listen, state_dir, retired, pools };
            toml::to_string(&file).unwrap()
        } else {
            let file = ServerFile {
                name,
                deployment,
                listen,
                state_dir,
                os_user: None,
                pg_bin_dir: Some(cluster::bin_dir()),
                retired: Default::default(),
                stop_postgres: false,
                pools: Vec::new(),
            };
            toml::to_string(&file).unwrap()
        };
        fs::write(self.config(number), text).unwrap();
        // What the mirror logs in with.
        for pool in [POOL, SECOND] {
            let files = self.dir.join(NAMES[number]).join(pool).join("backstay");
            fs::create_dir_all(&files).unwrap();
            let secret = files.join("secret");
            fs::write(&secret, "*:*:*:backstay:0123456789abcdef\n").unwrap();
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&secret, private).unwrap();
            let own = self.dir.join(NAMES[number]);
            for path in [&secret, &files, files.parent().unwrap(), &own] {
                cluster::os_user().own(path).unwrap();
            }
        }
    }

    fn config(&self, number: usize) -> PathBuf {
        self.dir.join(format!("{}.toml", NAMES[number]))
    }

    fn start(&mut self, number: usize) {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["topology::child_that_works_from_its_copy", "--exact", "--nocapture"])
            .env(CHILD, self.config(number))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.processes[number] = Some(child);
    }

    /// kill -9, PostgreSQL and all.
    fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.processes[number].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        kill_all(&self.dir.join(NAMES[number]));
    }

    fn document(&self, remark: &str) -> String {
        let [be0, be1, wit0] = self.ports;
        let root = |number: usize| self.dir.join(NAMES[number]).display().to_string();
        let sockets = self.dir.join("run");
        format!(
            "# {remark}\nformat = 1\ndeployment = \"test\"\ncentral_management = \"{POOL}\"\n\
             [defaults]\nprofile = \"fast\"\nsettings = {{ shared_buffers = \"16MB\" }}\n\
             [[server]]\nname = \"be0\"\nhost = \"127.0.0.1\"\nport = {be0}\nroot = \"{}\"\n\
             state_dir = \"{}\"\npostgres_listen = \"127.0.0.1\"\n\
             [[server]]\nname = \"be1\"\nhost = \"127.0.0.1\"\nport = {be1}\nroot = \"{}\"\n\
             state_dir = \"{}\"\npostgres_listen = \"127.0.0.1\"\n\
             [[witness]]\nname = \"wit0\"\nhost = \"127.0.0.1\"\nport = {wit0}\n\
             [[pool]]\nname = \"{POOL}\"\nprincipal = \"be0\"\nmirror = \"be1\"\n\
             witness = \"wit0\"\nport_on = {{ be0 = {}, be1 = {} }}\nsocket_dir = \"{}\"\n\
             client_access = [\"host all app 127.0.0.1/32 trust\"]\n",
            root(0),
            self.state_dir(0).display(),
            root(1),
            self.state_dir(1).display(),
            self.postgres[0],
            self.postgres[1],
            sockets.display()
        )
    }

    /// With a second pool on the same servers.
    fn document_of_two(&self, store: &str) -> String {
        let [.., be0, be1] = self.postgres;
        let one = self.document("two pools");
        let sockets = self.dir.join("run");
        one.replace(
            &format!("central_management = \"{POOL}\""),
            &format!("central_management = \"{store}\""),
        ) + &format!(
            "[[pool]]\nname = \"{SECOND}\"\nprincipal = \"be0\"\nmirror = \"be1\"\n\
                 witness = \"wit0\"\nport_on = {{ be0 = {be0}, be1 = {be1} }}\n\
                 socket_dir = \"{}\"\nclient_access = [\"host all app 127.0.0.1/32 trust\"]\n",
            sockets.display()
        )
    }

    async fn create(&self, pool: &str) {
        for number in 0..3 {
            until("the session is created", async || {
                let create = Request::CreateSession { pool: pool.to_owned() };
                let response = self.line(number).await.ask(&create).await;
                matches!(response, Response::Done { .. })
                    || code(&response).as_deref() == Some("session_exists")
            })
            .await;
        }
    }

    /// How many versions the store in the first server's PostgreSQL at `port` has.
    async fn stored(&self, port: u16) -> Option<i64> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.dir.join("run")).port(port).user("backstay").dbname("xds");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.ok()?;
        tokio::spawn(connection);
        let row = client.query_one("SELECT count(*) FROM backstay.topology", &[]).await.ok()?;
        Some(row.get(0))
    }

    async fn ask(&self, number: usize, request: TopologyRequest) -> Response {
        self.line(number).await.ask(&Request::Topology(request)).await
    }

    async fn hand(&self, number: usize, copy: &TopologyCopy) -> Response {
        self.ask(number, TopologyRequest::Hand { copy: copy.clone() }).await
    }

    async fn publish(&self, number: usize, base: u64, document: &str) -> Response {
        let (document, author) = (document.to_owned(), "ann".to_owned());
        let comment = format!("after {base}");
        self.ask(number, TopologyRequest::Publish { base, document, author, comment }).await
    }

    async fn shown(&self, number: usize) -> TopologyShown {
        let show = TopologyRequest::Show { version: None, document: false };
        match self.ask(number, show).await {
            Response::Topology(TopologyAnswer::Shown(shown)) => shown,
            other => panic!("{other:?}"),
        }
    }

    async fn replication(&self, number: usize) -> TopologyReplication {
        match self.ask(number, TopologyRequest::Replication).await {
            Response::Topology(TopologyAnswer::Replication(replication)) => replication,
            other => panic!("{other:?}"),
        }
    }

    async fn history(&self, number: usize) -> (Vec<TopologyHeader>, TopologySource) {
        match self.ask(number, TopologyRequest::History { before: None, limit: None }).await {
            Response::Topology(TopologyAnswer::History { versions, source }) => (versions, source),
            other => panic!("{other:?}"),
        }
    }

    /// The time until all three have `version`.
    async fn until_all_have(&self, version: u64) -> Duration {
        let begun = Instant::now();
        for number in 0..3 {
            until("a version arrives", async || self.shown(number).await.standing.have == version)
                .await;
        }
        begun.elapsed()
    }

    /// From nothing to a mirrored pool that holds the store, with the first version.
    async fn set_up(mut deployment: Deployment) -> Deployment {
        let copy = copies::seal(1, 1_763_870_400_000, "ann", "the first", deployment.document("1"));
        for number in 0..3 {
            deployment.start(number);
            assert_eq!(deployment.shown(number).await.header, None);
            let handed = deployment.hand(number, &copy).await;
            let header = copy.header.clone();
            assert_eq!(handed, Response::Topology(TopologyAnswer::Handed { header }));
        }
        deployment.create(POOL).await;
        until("the store is open", async || deployment.replication(0).await.is_store).await;
        deployment
    }

    async fn until_mirrored(&self, number: usize) {
        until("the pool is mirrored", async || {
            let status = Request::Status { pool: None };
            let Response::Status(status) = self.line(number).await.ask(&status).await else {
                return false;
            };
            let session = &status.sessions[0];
            let record = session.record.as_ref();
            session.serving
                && record.is_some_and(|it| it.protection == protocol::admin::Protection::Mirrored)
        })
        .await;
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for number in 0..3 {
            self.kill(number);
        }
        kill_all(&self.dir);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn kill_all(dir: &Path) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        let left = deadline::processes_of(dir);
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < PATIENCE, "it never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn code(response: &Response) -> Option<String> {
    match response {
        Response::Refused(refusal) => Some(refusal.code.clone()),
        _other => None,
    }
}

fn published(response: &Response) -> Option<u64> {
    match response {
        Response::Topology(TopologyAnswer::Published { header }) => Some(header.version),
        _other => None,
    }
}

#[tokio::test]
async fn what_is_published_reaches_everybody_at_once_and_one_that_was_off_catches_up() {
    let mut deployment = Deployment::set_up(Deployment::new("publish")).await;
    deployment.until_mirrored(0).await;

    let second = deployment.document("2");
    assert_eq!(published(&deployment.publish(0, 1, &second).await), Some(2));
    let took = deployment.until_all_have(2).await;
    assert!(took < SOON, "{took:?}");
    assert_eq!(published(&deployment.publish(0, 1, &second).await), Some(2), "asked again");
    until("all are told to have it", async || {
        let replication = deployment.replication(0).await;
        assert!(replication.is_store);
        replication.processes.len() == 3 && replication.processes.iter().all(|it| it.is_current)
    })
    .await;
    let replication = deployment.replication(0).await;
    assert_eq!(replication.processes[2].kind, TopologyKind::Witness);
    assert!(replication.processes.iter().all(|it| it.is_connected));

    let third = deployment.document("3, by one");
    let other = deployment.document("3, by another");
    let both = tokio::join!(deployment.publish(0, 2, &third), deployment.publish(0, 2, &other));
    let (won, lost) = match (&both.0, &both.1) {
        (won, lost) if published(won).is_some() => (won, lost),
        (lost, won) => (won, lost),
    };
    assert_eq!(published(won), Some(3));
    match lost {
        Response::Topology(TopologyAnswer::Outdated { newest }) => {
            assert_eq!((newest.version, newest.author.as_str()), (3, "ann"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(code(&deployment.publish(1, 3, &second).await).as_deref(), Some("not_store"));
    let faulty = second.replace("mirror = \"be1\"", "mirror = \"be7\"");
    match deployment.publish(0, 3, &faulty).await {
        Response::Topology(TopologyAnswer::Faulty { findings }) => {
            assert!(findings.iter().any(|found| found.is_error && found.line.is_some()));
        }
        other => panic!("{other:?}"),
    }
    let foreign = second.replace("deployment = \"test\"", "deployment = \"other\"");
    let refused = deployment.publish(0, 3, &foreign).await;
    assert_eq!(code(&refused).as_deref(), Some("foreign_document"));
    let swapped = second.replace("\"be0\"\nmirror = \"be1\"", "\"be1\"\nmirror = \"be0\"");
    match deployment.publish(0, 3, &swapped).await {
        Response::Topology(TopologyAnswer::Faulty { findings }) => {
            assert_eq!(findings[0].rule, "partner-keeps-its-place");
        }
        other => panic!("{other:?}"),
    }

    deployment.kill(2);
    assert_eq!(published(&deployment.publish(0, 3, &second).await), Some(4));
    until("it is known that the witness is away", async || {
        let witness = deployment.replication(0).await.processes[2].clone();
        !witness.is_connected && !witness.is_current
    })
    .await;
    deployment.start(2);
    let took = deployment.until_all_have(4).await;
    assert!(took < SOON * 3, "{took:?}");
    let (versions, source) = deployment.history(0).await;
    let numbers: Vec<u64> = versions.iter().map(|header| header.version).collect();
    assert_eq!((numbers, source), (vec![4, 3, 2, 1], TopologySource::Store));
    let (versions, source) = deployment.history(2).await;
    assert_eq!((versions[0].version, source), (4, TopologySource::Copies));
}

#[tokio::test]
async fn what_was_acknowledged_is_in_the_store_after_a_failover() {
    let mut deployment = Deployment::set_up(Deployment::new("failover")).await;
    deployment.until_mirrored(0).await;
    let mut line = deployment.line(0).await;
    let mut acknowledged = 1;
    let begun = Instant::now();
    for version in 2.. {
        let publish = TopologyRequest::Publish {
            base: version - 1,
            document: deployment.document(&version.to_string()),
            author: "ann".to_owned(),
            comment: String::new(),
        };
        line.say(&Request::Topology(publish)).await;
        if begun.elapsed() > Duration::from_secs(1) {
            // This one is under way, and may be there afterwards or not.
            deployment.kill(0);
            break;
        }
        assert_eq!(published(&line.hear().await), Some(version));
        acknowledged = version;
    }
    assert!(acknowledged > 3, "{acknowledged}");
    until("the mirror has taken over, and the store with it", async || {
        deployment.replication(1).await.is_store
    })
    .await;
    let (versions, source) = deployment.history(1).await;
    assert_eq!(source, TopologySource::Store);
    let newest = versions[0].version;
    assert!(newest >= acknowledged, "{newest} of {acknowledged}");
    let next = deployment.document("after the failover");
    assert_eq!(published(&deployment.publish(1, newest, &next).await), Some(newest + 1));
    deployment.start(0);
    deployment.until_all_have(newest + 1).await;
}

#[tokio::test]
async fn a_process_starts_from_its_copy_alone_and_never_from_a_torn_one() {
    let mut deployment = Deployment::new("alone");
    let first = copies::seal(1, 1, "ann", "", deployment.document("1"));
    let second = copies::seal(2, 2, "ann", "", deployment.document("2"));
    deployment.start(2);
    deployment.hand(2, &first).await;
    deployment.hand(2, &second).await;
    let again = deployment.hand(2, &first).await;
    assert_eq!(code(&again).as_deref(), Some("older_version"));
    let mut altered = copies::seal(3, 3, "ann", "", deployment.document("3"));
    altered.document.push(' ');
    assert_eq!(code(&deployment.hand(2, &altered).await).as_deref(), Some("damaged_copy"));

    deployment.kill(2);
    deployment.start(2);
    let shown = deployment.shown(2).await;
    assert_eq!(shown.header, Some(second.header.clone()));
    let status = Request::Status { pool: None };
    let Response::Status(status) = deployment.line(2).await.ask(&status).await else {
        panic!("no status");
    };
    assert_eq!(status.sessions.len(), 1, "it votes in its session, with nobody else there");

    deployment.kill(2);
    let current = deployment.state_dir(2).join("topology").join("current");
    let whole = fs::read(&current).unwrap();
    fs::write(&current, &whole[..whole.len() - 1]).unwrap();
    deployment.start(2);
    assert_eq!(deployment.shown(2).await.header, Some(first.header.clone()));
    let reader = TopologyRequest::Show { version: Some(2), document: true };
    assert_eq!(code(&deployment.ask(2, reader).await).as_deref(), Some("unknown_version"));

    let away = deployment.publish(2, 1, &second.document).await;
    assert_eq!(code(&away).as_deref(), Some("store_away"), "{away:?}");
    let unnamed = second.document.replace("\"wit0\"", "\"wit9\"");
    let unnamed = copies::seal(3, 3, "ann", "", unnamed);
    deployment.hand(2, &unnamed).await;
    let standing = deployment.shown(2).await.standing;
    assert_eq!(standing.have, 3);
    assert!(standing.problem.unwrap().contains("does not name this process"));
}

#[tokio::test]
async fn with_certificates_no_password_is_needed_and_the_author_is_who_has_the_certificate() {
    let deployment = Deployment::set_up(Deployment::with_certificates("secure")).await;
    deployment.until_mirrored(0).await;
    let second = deployment.document("2");
    assert_eq!(published(&deployment.publish(0, 1, &second).await), Some(2));
    let took = deployment.until_all_have(2).await;
    assert!(took < SOON, "{took:?}");
    let (versions, _) = deployment.history(0).await;
    assert_eq!(versions[0].author, "carol", "whatever she says");
    until("all are told to have it", async || {
        let replication = deployment.replication(1).await;
        replication.processes.iter().all(|it| it.is_current && it.is_connected)
    })
    .await;
}

#[tokio::test]
async fn a_second_pool_comes_by_one_publication_and_takes_the_store_with_its_history() {
    let deployment = Deployment::set_up(Deployment::new("moves")).await;
    deployment.until_mirrored(0).await;
    let (two, moved) = (deployment.document_of_two(POOL), deployment.document_of_two(SECOND));
    assert_eq!(published(&deployment.publish(0, 1, &two).await), Some(2));
    deployment.create(SECOND).await;
    // Its database is made by the pool's principal, once it serves.
    assert_eq!(published(&deployment.publish(0, 2, &moved).await), Some(3));
    let port = deployment.postgres[2];
    until("the other pool's server has all versions", async || {
        deployment.stored(port).await == Some(3)
    })
    .await;
    until("a version is published there", async || {
        published(&deployment.publish(0, 3, &moved).await) == Some(4)
    })
    .await;
    assert_eq!(deployment.stored(port).await, Some(4));
    assert_eq!(deployment.stored(deployment.postgres[0]).await, Some(3), "the old one rests");
    let (versions, source) = deployment.history(0).await;
    assert_eq!((versions.len(), source), (4, TopologySource::Store));
    deployment.until_all_have(4).await;
}
