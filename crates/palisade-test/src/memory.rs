//! How much memory a process holds, and who belongs to it.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result};

/// Memory of a process tree, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident now (`VmRSS`).
    pub resident: u64,
    /// Most ever resident (`VmHWM`). Of a tree: the sum of each process's own peak, which is an upper bound.
    pub peak: u64,
}

/// Memory of one process.
///
/// # Errors
/// When it has ended.
pub fn resident_memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        // A process that has ended but was not awaited has no such lines.
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        kib * 1024
    };
    Ok(Memory { resident: field("VmRSS:"), peak: field("VmHWM:") })
}

/// Memory of a process and all that it started.
///
/// # Errors
/// When it has ended.
pub fn resident_memory_of_tree(pid: u32) -> Result<Memory> {
    let mut sum = resident_memory(pid)?;
    for child in descendants(pid) {
        let memory = resident_memory(child).unwrap_or_default();
        sum.resident += memory.resident;
        sum.peak += memory.peak;
    }
    Ok(sum)
}

/// All that a process started, and they in turn, as far as it can be seen: one whose parent has ended belongs to nobody.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = parent(id) {
            children.entry(parent).or_default().push(id);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![pid];
    while let Some(pid) = next.pop() {
        let of_this = children.remove(&pid).unwrap_or_default();
        next.extend(&of_this);
        found.extend(of_this);
    }
    found
}

/// Processes whose environment has this variable with this value: what a program with a home of its own left behind.
pub(crate) fn with_variable(name: &str, value: &str) -> Vec<u32> {
    let wanted = format!("{name}={value}");
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|id: &u32| {
            let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes())
        })
        .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, and may hold both blanks and parentheses.
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_this_process() {
        let before = resident_memory(std::process::id()).unwrap();
        assert!(before.resident > 1 << 20 && before.peak >= before.resident);
        let block = vec![1_u8; 64 << 20];
        let after = resident_memory(std::process::id()).unwrap();
        assert!(after.peak >= before.resident + (block.len() as u64) / 2, "{before:?} {after:?}");
    }
}
