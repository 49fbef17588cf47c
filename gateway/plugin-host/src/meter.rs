//! What an instance and a call have used, and the answer when it is too much.

use wasmtime::ResourceLimiter;

/// Memory of one instance, summed over all its memories and tables. Memory is never given back before the instance ends,
/// so what is used now is also the peak.
#[derive(Debug)]
pub(crate) struct MemoryMeter {
    limit_bytes: u64,
    used_bytes: u64,
    last_growth_bytes: u64,
    /// A growth was refused. Set back at the start of each call.
    pub refused: bool,
}

impl MemoryMeter {
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, used_bytes: 0, last_growth_bytes: 0, refused: false }
    }

    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Allows `bytes` more than the limit from here on.
    pub fn allow_more(&mut self, bytes: u64) {
        self.limit_bytes = self.limit_bytes.saturating_add(bytes);
    }

    fn grow(&mut self, growth_bytes: u64) -> bool {
        let wanted = self.used_bytes.saturating_add(growth_bytes);
        if wanted > self.limit_bytes {
            self.refused = true;
            self.last_growth_bytes = 0;
            return false;
        }
        self.used_bytes = wanted;
        self.last_growth_bytes = growth_bytes;
        true
    }

    /// The growth was allowed here but failed in the allocator: take it back.
    fn take_back(&mut self) {
        self.used_bytes -= std::mem::take(&mut self.last_growth_bytes);
        self.refused = true;
    }
}

impl ResourceLimiter for MemoryMeter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current) as u64))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let elements = desired.saturating_sub(current) as u64;
        Ok(self.grow(elements.saturating_mul(size_of::<usize>() as u64)))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }
}

/// Why the host stopped a guest inside a host call. Comes back as the cause of the trap.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// More output than allowed.
    #[error("output of {size_bytes} bytes is more than {limit_bytes}")]
    Output {
        /// What it came to.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// Something the contract forbids.
    #[error("{0}")]
    Breach(String),
}

/// What the drafts of one call have added so far.
#[derive(Debug, Default)]
pub(crate) struct OutputMeter {
    used_bytes: u64,
    limit_bytes: u64,
    /// A copy of the original body that may be edited free of charge: the first edited draft pays for what it adds only,
    /// every further one for a whole body.
    free_body_used: bool,
}

impl OutputMeter {
    pub fn new(limit_bytes: u64) -> Self {
        Self { used_bytes: 0, limit_bytes, free_body_used: false }
    }

    /// Counts `bytes`.
    pub fn add(&mut self, bytes: usize) -> Result<(), Stop> {
        self.used_bytes = self.used_bytes.saturating_add(bytes as u64);
        if self.used_bytes > self.limit_bytes {
            return Err(Stop::Output { size_bytes: self.used_bytes, limit_bytes: self.limit_bytes });
        }
        Ok(())
    }

    /// Counts an own copy of the original body.
    pub fn add_copy_of_body(&mut self, bytes: usize) -> Result<(), Stop> {
        if std::mem::replace(&mut self.free_body_used, true) { self.add(bytes) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_summed_over_memories_and_tables() {
        let mut meter = MemoryMeter::new(200_000);
        assert!(meter.memory_growing(0, 65_536, None).expect("no error"));
        assert!(meter.memory_growing(0, 65_536, None).expect("no error"));
        assert!(meter.table_growing(0, 100, None).expect("no error"));
        assert_eq!(meter.used_bytes(), 131_872);
        assert!(!meter.memory_growing(65_536, 196_608, None).expect("no error"));
        assert!(meter.refused);
        assert_eq!(meter.used_bytes(), 131_872);
    }

    #[test]
    fn a_growth_that_failed_is_taken_back_once() {
        let mut meter = MemoryMeter::new(200_000);
        assert!(meter.memory_growing(0, 65_536, None).expect("no error"));
        meter.memory_grow_failed(wasmtime::Error::msg("no room")).expect("no error");
        meter.memory_grow_failed(wasmtime::Error::msg("no room")).expect("no error");
        assert_eq!(meter.used_bytes(), 0);
    }

    #[test]
    fn the_first_edited_body_is_free_and_the_second_is_not() {
        let mut meter = OutputMeter::new(100);
        meter.add_copy_of_body(1_000).expect("free");
        meter.add(100).expect("exactly the limit");
        let stop = meter.add_copy_of_body(1_000).expect_err("a second copy");
        assert!(matches!(stop, Stop::Output { size_bytes: 1_100, limit_bytes: 100 }));
    }
}
