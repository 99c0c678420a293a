//! A job's counts per task group: `JobSummary`. Bins move with the client status; the ends only grow.

use dunlin_runtime::event::ClientStatus;
use serde::{Deserialize, Serialize};

/// The counts of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSummary {
    /// The group.
    pub group: String,
    /// Wanted, not placed.
    pub queued_n: u32,
    /// Placed, no task has started.
    pub starting_n: u32,
    /// Running.
    pub running_n: u32,
    /// Ended well, ever.
    pub complete_n: u32,
    /// Failed, ever.
    pub failed_n: u32,
    /// Lost, ever.
    pub lost_n: u32,
}

impl GroupSummary {
    fn bin(&mut self, status: ClientStatus) -> &mut u32 {
        match status {
            ClientStatus::Pending => &mut self.starting_n,
            ClientStatus::Running => &mut self.running_n,
            ClientStatus::Complete => &mut self.complete_n,
            ClientStatus::Failed => &mut self.failed_n,
            ClientStatus::Lost => &mut self.lost_n,
        }
    }

    /// An allocation of this group goes from one status to another; `None` = it is new.
    pub fn shift(&mut self, from: Option<ClientStatus>, to: ClientStatus) {
        if let Some(from) = from.filter(|from| !from.is_terminal()) {
            let bin = self.bin(from);
            *bin = bin.saturating_sub(1);
        }
        let bin = self.bin(to);
        *bin = bin.saturating_add(1);
    }
}

/// The entry of `group`, made when it is not there yet.
pub fn entry<'s>(summary: &'s mut Vec<GroupSummary>, group: &str) -> &'s mut GroupSummary {
    let at = summary.iter().position(|entry| entry.group == group).unwrap_or_else(|| {
        summary.push(GroupSummary { group: group.to_owned(), ..GroupSummary::default() });
        summary.len() - 1
    });
    &mut summary[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_only_grow() {
        let mut group = GroupSummary::default();
        group.shift(None, ClientStatus::Pending);
        group.shift(Some(ClientStatus::Pending), ClientStatus::Running);
        group.shift(Some(ClientStatus::Running), ClientStatus::Failed);
        group.shift(Some(ClientStatus::Failed), ClientStatus::Running);
        assert_eq!((group.starting_n, group.running_n, group.failed_n), (0, 1, 1));
    }
}
