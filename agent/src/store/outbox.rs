//! What has to be reported upstream: one row per allocation, holding the version of its newest full state.
//!
//! The state itself is the allocation's row, so the two can never differ: the outbox row is put in the same batch
//! (invariant I5). Only allocations owned by upstream are reported (invariant I6, decision 13). An acknowledgement removes
//! the row only when it names the version that was sent.

use dunlin_runtime::id::AllocId;

use super::{Store, StoreError, keys, rows};
use crate::model::alloc::{Allocation, Owner};

/// Notes that `alloc`, just put, has a state upstream has not seen.
pub(super) fn note(store: &mut Store, alloc: &Allocation) {
    if alloc.owner == Owner::Upstream {
        store.put(keys::outbox(alloc.id), Some(rows::encode_outbox(alloc.modify_index)));
    }
}

/// Upstream has stored the state of `version`: the row goes, unless a newer state has come since.
///
/// # Errors
/// When the row cannot be read.
pub fn acknowledge(store: &mut Store, id: AllocId, version: u64) -> Result<(), StoreError> {
    let key = keys::outbox(id);
    let stored = store.view().get(&key)?.map(|bytes| rows::decode_outbox(&bytes)).transpose()?;
    if stored.is_some_and(|stored| stored <= version) {
        store.put(key, None);
    }
    Ok(())
}

/// Up to `n` allocations with something to report after `after`, in order of id.
///
/// # Errors
/// When rows cannot be read.
pub fn waiting(store: &Store, after: Option<AllocId>, n: usize) -> Result<Vec<(AllocId, u64)>, StoreError> {
    let from = after.map(keys::outbox);
    store
        .view()
        .scan_after(keys::OUTBOX, from.as_deref(), n)?
        .into_iter()
        .map(|(key, value)| {
            let id = keys::last_id(&key).ok_or(StoreError::Corrupt { kind: "outbox" })?;
            Ok((AllocId(id), rows::decode_outbox(&value)?))
        })
        .collect()
}
