//! System memory, from `/proc/meminfo`.

use model::gpu::Ram;
use procfs::Current;

use crate::MIB;

/// Reads the machine's memory; none where the kernel does not say.
#[must_use]
pub fn ram() -> Option<Ram> {
    let meminfo = procfs::Meminfo::current().ok()?;
    Some(Ram { total_mib: meminfo.mem_total / MIB, available_mib: meminfo.mem_available? / MIB })
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_has_memory_and_some_of_it_is_free() {
        let ram = super::ram().expect("Linux says how much memory there is");
        assert!(ram.total_mib > 0);
        assert!((1..=ram.total_mib).contains(&ram.available_mib), "{ram:?}");
    }
}
