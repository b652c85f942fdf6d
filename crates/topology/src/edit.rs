//! Small changes to a document that leave everything else as people wrote it.
//!
//! Comments, the order of fields and blank lines stay. What comes out is not checked here:
//! whoever edits examines the text afterwards, as if a person had typed it.

use std::fmt;

use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use crate::draft::Place;

/// A document under change.
#[derive(Clone, Debug)]
pub struct Edit {
    document: DocumentMut,
}

/// A pool to be added.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NewPool {
    pub name: String,
    pub principal: String,
    pub mirror: Option<String>,
    /// `None`: that of the defaults.
    pub witness: Option<String>,
    pub port: Option<u16>,
    pub databases: Vec<String>,
    pub front_ends: Vec<(Place, Option<u16>, Option<u16>)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EditError {
    /// The text is no TOML; `examine` says where.
    NotToml,
    NoSuchPool(String),
    AlreadyThere(String),
    /// A section is written in a form that cannot be edited, such as `pool = 1`.
    Shape(&'static str),
}

impl fmt::Display for EditError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EditError::NotToml => formatter.write_str("the document is no TOML"),
            EditError::NoSuchPool(name) => write!(formatter, "the document has no pool {name}"),
            EditError::AlreadyThere(name) => write!(formatter, "the document has {name} already"),
            EditError::Shape(section) => {
                write!(formatter, "{section} is not written as a list of tables: [[{section}]]")
            }
        }
    }
}

impl std::error::Error for EditError {}

impl Edit {
    /// # Errors
    /// If the text is no TOML.
    pub fn new(text: &str) -> Result<Edit, EditError> {
        let document = text.parse::<DocumentMut>().map_err(|_| EditError::NotToml)?;
        Ok(Edit { document })
    }

    /// The document as it is now.
    pub fn text(&self) -> String {
        self.document.to_string()
    }

    /// # Errors
    /// If there is one of this name.
    pub fn add_server(&mut self, server: &Place) -> Result<(), EditError> {
        self.add_place("server", server)
    }

    /// # Errors
    /// If there is one of this name.
    pub fn add_witness(&mut self, witness: &Place) -> Result<(), EditError> {
        self.add_place("witness", witness)
    }

    /// # Errors
    /// If there is a pool of this name.
    pub fn add_pool(&mut self, pool: &NewPool) -> Result<(), EditError> {
        if self.pool(&pool.name).is_ok() {
            return Err(EditError::AlreadyThere(format!("pool {}", pool.name)));
        }
        let mut table = blank_line_before();
        table.insert("name", text(&pool.name));
        let method = if pool.mirror.is_some() { "mirroring" } else { "none" };
        table.insert("method", text(method));
        table.insert("principal", text(&pool.principal));
        for (field, name) in [("mirror", &pool.mirror), ("witness", &pool.witness)] {
            if let Some(name) = name {
                table.insert(field, text(name));
            }
        }
        if let Some(port) = pool.port {
            table.insert("port", number(port));
        }
        let databases = pool.databases.iter().map(|name| {
            let mut database = blank_line_before();
            database.insert("name", text(name));
            database
        });
        insert_tables(&mut table, "database", databases);
        let front_ends = pool.front_ends.iter().map(|(place, port, admin_port)| {
            let mut front_end = blank_line_before();
            front_end.insert("name", text(&place.name));
            front_end.insert("host", text(&place.host));
            for (field, port) in [("port", port), ("admin_port", admin_port)] {
                if let Some(port) = port {
                    front_end.insert(field, number(*port));
                }
            }
            front_end
        });
        insert_tables(&mut table, "front_end", front_ends);
        self.push("pool", table)
    }

    /// Takes a pool out, with its databases' and Front Ends' entries.
    ///
    /// # Errors
    /// If there is no such pool.
    pub fn remove_pool(&mut self, name: &str) -> Result<(), EditError> {
        self.pool(name)?;
        let mut above = String::new();
        match self.document.get_mut("pool") {
            Some(Item::ArrayOfTables(all)) => above = take_out(all, name),
            Some(Item::Value(Value::Array(all))) => all.retain(|value| {
                value.as_inline_table().is_none_or(|table| !is_called(table, name))
            }),
            Some(Item::None | Item::Value(_) | Item::Table(_)) | None => {}
        }
        let trailing = self.document.trailing().as_str().unwrap_or_default();
        let trailing = above + trailing;
        self.document.set_trailing(trailing);
        Ok(())
    }

    /// Names the pool's mirror; a pool of one server becomes a mirrored one. What was said of the
    /// mirror before alone (`settings_on`, `port_on`) goes with it.
    ///
    /// # Errors
    /// If there is no such pool.
    pub fn set_mirror(&mut self, pool: &str, server: &str) -> Result<(), EditError> {
        let table = self.pool(pool)?;
        if table.contains_key("method") {
            set(table, "method", "mirroring");
        }
        forget_mirror(table, Some(server));
        set(table, "mirror", server);
        Ok(())
    }

    /// The pool goes on with its principal alone, and with no witness.
    ///
    /// # Errors
    /// If there is no such pool.
    pub fn remove_mirror(&mut self, pool: &str) -> Result<(), EditError> {
        let table = self.pool(pool)?;
        forget_mirror(table, None);
        remove(table, "mirror");
        remove(table, "witness");
        remove(table, "spare_witnesses");
        set(table, "method", "none");
        Ok(())
    }

    /// # Errors
    /// If there is no such pool.
    pub fn set_witness(&mut self, pool: &str, witness: &str) -> Result<(), EditError> {
        set(self.pool(pool)?, "witness", witness);
        Ok(())
    }

    /// Takes the witness from the pool, and nothing else. Where the defaults name one, the pool
    /// says that it wants none.
    ///
    /// # Errors
    /// If there is no such pool.
    pub fn remove_witness(&mut self, pool: &str) -> Result<(), EditError> {
        let by_default =
            self.document.get("defaults").and_then(|defaults| defaults.get("witness")).is_some();
        let table = self.pool(pool)?;
        if by_default {
            set(table, "witness", "");
        } else {
            remove(table, "witness");
        }
        Ok(())
    }

    /// Makes another server the pool's principal of the first set-up.
    ///
    /// # Errors
    /// If there is no such pool.
    pub fn set_principal(&mut self, pool: &str, server: &str) -> Result<(), EditError> {
        set(self.pool(pool)?, "principal", server);
        Ok(())
    }

    fn add_place(&mut self, section: &'static str, place: &Place) -> Result<(), EditError> {
        if tables(&mut self.document, section).any(|table| is_called(table, &place.name)) {
            return Err(EditError::AlreadyThere(format!("{section} {}", place.name)));
        }
        let mut table = blank_line_before();
        table.insert("name", text(&place.name));
        table.insert("host", text(&place.host));
        self.push(section, table)
    }

    fn pool(&mut self, name: &str) -> Result<&mut dyn TableLike, EditError> {
        tables(&mut self.document, "pool")
            .find(|table| is_called(*table, name))
            .ok_or_else(|| EditError::NoSuchPool(name.to_owned()))
    }

    fn push(&mut self, section: &'static str, mut table: Table) -> Result<(), EditError> {
        match self
            .document
            .entry(section)
            .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()))
        {
            Item::ArrayOfTables(all) => {
                // Beside its kin, wherever those stand; whatever stood behind them stays there.
                let position = all.iter().filter_map(last_position).max();
                if let Some(position) = position {
                    place_at(&mut table, position);
                }
                all.push(table);
                Ok(())
            }
            Item::Value(Value::Array(all)) => {
                let mut inline = table.into_inline_table();
                InlineTable::fmt(&mut inline);
                all.push(inline);
                Ok(())
            }
            Item::None | Item::Value(_) | Item::Table(_) => Err(EditError::Shape(section)),
        }
    }
}

/// The last place that a table, or one within it, has among all tables of the document.
fn last_position(table: &Table) -> Option<isize> {
    let inner = table.iter().flat_map(|(_, item)| match item {
        Item::ArrayOfTables(all) => all.iter().filter_map(last_position).collect::<Vec<_>>(),
        Item::Table(table) => last_position(table).into_iter().collect(),
        Item::None | Item::Value(_) => Vec::new(),
    });
    inner.chain(table.position()).max()
}

/// Puts a new table, and those within it, at a place of the document; tables with one place keep
/// their order.
fn place_at(table: &mut Table, position: isize) {
    table.set_position(Some(position));
    for (_, item) in table.iter_mut() {
        if let Item::ArrayOfTables(all) = item {
            for inner in all.iter_mut() {
                place_at(inner, position);
            }
        }
    }
}

/// The tables of a section, whether `[[section]]` or an inline list.
fn tables<'a>(
    document: &'a mut DocumentMut,
    section: &str,
) -> Box<dyn Iterator<Item = &'a mut dyn TableLike> + 'a> {
    match document.get_mut(section) {
        Some(Item::ArrayOfTables(all)) => {
            Box::new(all.iter_mut().map(|table| table as &mut dyn TableLike))
        }
        Some(Item::Value(Value::Array(all))) => Box::new(
            all.iter_mut()
                .filter_map(Value::as_inline_table_mut)
                .map(|table| table as &mut dyn TableLike),
        ),
        Some(Item::None | Item::Value(_) | Item::Table(_)) | None => Box::new(std::iter::empty()),
    }
}

fn is_called(table: &dyn TableLike, name: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(name)
}

/// Takes a table out. Comments that a blank line parts from it belong to what stands above: they
/// go to the next table of the list, or are returned.
fn take_out(all: &mut ArrayOfTables, name: &str) -> String {
    let Some(at) = all.iter().position(|table| is_called(table, name)) else {
        return String::new();
    };
    let prefix = |table: &Table| {
        table.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_owned()
    };
    let own = all.get(at).map(prefix).unwrap_or_default();
    let above = own.rfind("\n\n").map_or("", |blank| &own[..=blank]);
    let above = if above.contains('#') { above.to_owned() } else { String::new() };
    all.remove(at);
    let Some(next) = all.get_mut(at) else { return above };
    let joined = above + &prefix(next);
    next.decor_mut().set_prefix(joined);
    String::new()
}

/// Takes out what is said of the present mirror alone, unless it is `next`.
fn forget_mirror(table: &mut dyn TableLike, next: Option<&str>) {
    let mirror = table.get("mirror").and_then(Item::as_str).map(str::to_owned);
    let Some(mirror) = mirror.filter(|mirror| Some(mirror.as_str()) != next) else { return };
    for field in ["settings_on", "port_on"] {
        let Some(of_servers) = table.get_mut(field).and_then(Item::as_table_like_mut) else {
            continue;
        };
        of_servers.remove(&mirror);
        if of_servers.is_empty() {
            remove(table, field);
        }
    }
}

/// Sets a field. The comment behind an old value stays.
fn set(table: &mut dyn TableLike, field: &str, value: &str) {
    let mut new = Value::from(value);
    match table.get_mut(field) {
        Some(Item::Value(old)) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        Some(Item::None | Item::Table(_) | Item::ArrayOfTables(_)) | None => {
            table.insert(field, Item::Value(new));
        }
    }
}

/// Takes a field out. Comments above it go to the field below it.
fn remove(table: &mut dyn TableLike, field: &str) {
    let names: Vec<String> = table.iter().map(|(name, _)| name.to_owned()).collect();
    let at = names.iter().position(|name| name == field);
    let below = at.and_then(|at| names.get(at + 1));
    let prefix = |table: &dyn TableLike, field: &str| {
        let decor = table.key(field).map(|key| key.leaf_decor().clone());
        let prefix = decor.and_then(|decor| decor.prefix().cloned());
        prefix.and_then(|prefix| prefix.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let above = prefix(table, field);
    if let Some(below) = below.filter(|_| above.contains('#')) {
        let joined = above + &prefix(table, below);
        if let Some(mut key) = table.key_mut(below) {
            key.leaf_decor_mut().set_prefix(joined);
        }
    }
    table.remove(field);
}

fn blank_line_before() -> Table {
    let mut table = Table::new();
    table.decor_mut().set_prefix("\n");
    table
}

fn insert_tables(table: &mut Table, section: &str, all: impl Iterator<Item = Table>) {
    let mut array = ArrayOfTables::new();
    for inner in all {
        array.push(inner);
    }
    if !array.is_empty() {
        table.insert(section, Item::ArrayOfTables(array));
    }
}

fn text(value: &str) -> Item {
    Item::Value(Value::from(value))
}

fn number(value: u16) -> Item {
    Item::Value(Value::from(i64::from(value)))
}
