//! What a principal makes for clients once it serves: the pool's databases with their owners, and
//! the Front Ends' role. It is tried for a while, beside everything else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::config;
use crate::postgres::{self, Condition, Database, Instance};

/// Tries until what clients need is there, or PostgreSQL no longer lets them in.
pub(super) async fn furnish(
    instance: Arc<Instance>,
    furniture: Furniture,
    mut shown: watch::Receiver<Condition>,
) {
    if shown.wait_for(|condition| condition.admitted.is_some()).await.is_err() {
        return;
    }
    for _ in 0..20 {
        match furniture.put(&instance).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(error, what = %furniture, "not made yet"),
        }
        sleep(Duration::from_secs(1)).await;
        if shown.borrow().admitted.is_none() {
            return;
        }
    }
    tracing::error!(pool = instance.pool, what = %furniture, "not made: see the warnings before");
}

/// What a principal makes for clients, once it serves.
#[derive(Clone, Debug)]
pub(super) enum Furniture {
    Databases(Vec<config::DatabaseEntry>),
    FrontEnd { password_file: Option<PathBuf> },
}

impl std::fmt::Display for Furniture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Furniture::Databases(_) => "the pool's databases",
            Furniture::FrontEnd { .. } => "the Front Ends' role",
        })
    }
}

impl Furniture {
    async fn put(&self, instance: &Instance) -> Result<(), String> {
        let made = match self {
            Furniture::Databases(entries) => {
                let databases = entries.iter().map(|entry| {
                    let (name, owner) = (entry.name.clone(), entry.owner.clone());
                    let password = entry.password_file.as_deref().map(password).transpose()?;
                    Ok(Database { name, owner, password })
                });
                let databases = databases.collect::<Result<Vec<_>, String>>()?;
                postgres::databases::make(instance, &databases).await
            }
            Furniture::FrontEnd { password_file } => {
                let password = password_file.as_deref().map(password).transpose()?;
                postgres::front_end::make(instance, password.as_deref()).await
            }
        };
        made.map_err(|error| error.to_string())
    }
}

fn password(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    match text.trim() {
        "" => Err(format!("{} is empty: write a password into it", file.display())),
        password => Ok(password.to_owned()),
    }
}
