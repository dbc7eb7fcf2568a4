//! Which images this process is storing, so that there is one upload of an id at a time, and one that was given up is waited for
//! by the next until it is cleaned up.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

/// How long the next upload of an id waits for the last to be cleaned up, which takes longer only while the cluster is away.
const PATIENCE: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(60) };

/// The uploads of a store by the names of their images.
#[derive(Clone, Default)]
pub(crate) struct Claims(Arc<Mutex<HashMap<String, Slot>>>);

#[derive(Clone)]
struct Slot {
    given_up: Arc<AtomicBool>,
    /// Closed when the claim is dropped.
    held: watch::Receiver<()>,
}

/// The right to work on a name; whoever cleans an upload up holds it to the end.
pub(crate) struct Claim {
    claims: Claims,
    name: String,
    _held: watch::Sender<()>,
}

/// That somebody still wants the upload. Dropped before the claim is, the upload is given up.
pub(crate) struct Interest(Arc<AtomicBool>);

impl Claims {
    /// Claims a name, once whoever gave it up has cleaned up. `None`: somebody is working on it.
    pub(crate) async fn claim(&self, name: &str) -> Option<(Claim, Interest)> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut held = match self.try_claim(name) {
                Ok(claimed) => return Some(claimed),
                Err(slot) if slot.given_up.load(Ordering::SeqCst) => slot.held,
                Err(_) => return None,
            };
            // Nothing is ever sent: this ends when the sender is dropped.
            tokio::time::timeout_at(until, held.changed()).await.ok()?.err()?;
        }
    }

    fn try_claim(&self, name: &str) -> Result<(Claim, Interest), Slot> {
        let mut names = self.names();
        if let Some(slot) = names.get(name) {
            return Err(slot.clone());
        }
        let (sender, held) = watch::channel(());
        let given_up = Arc::new(AtomicBool::new(false));
        names.insert(name.to_owned(), Slot { given_up: given_up.clone(), held });
        let claim = Claim { claims: self.clone(), name: name.to_owned(), _held: sender };
        Ok((claim, Interest(given_up)))
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.names().remove(&self.name);
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_one_uploads_until_that_is_cleaned_up() {
        let claims = Claims::default();
        let (claim, interest) = claims.claim("a").await.unwrap();
        assert!(claims.claim("a").await.is_none(), "it is alive");
        assert!(claims.claim("b").await.is_some());
        drop(interest);
        let cleaned = Arc::new(AtomicBool::new(false));
        let cleaning = cleaned.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            cleaning.store(true, Ordering::SeqCst);
            drop(claim);
        });
        let (claim, _interest) = claims.claim("a").await.expect("it waits for the clean-up");
        assert!(cleaned.load(Ordering::SeqCst));
        drop(claim);
        let (_claim, interest) = claims.claim("a").await.unwrap();
        drop(interest);
        assert!(claims.claim("a").await.is_none(), "not for ever");
    }
}
