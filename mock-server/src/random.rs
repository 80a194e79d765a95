//! Chance, injected: what PostgreSQL draws from the machine is drawn here from the seed.

use sha2::{Digest, Sha256};

/// Process ids of sessions follow this number.
pub(crate) const FIRST_PID: i32 = 4000;

/// `N` bytes (at most 32) that are a function of the seed, the session and what they are for.
pub(crate) fn bytes<const N: usize>(seed: u64, session: u32, purpose: &str) -> [u8; N] {
    let digest = Sha256::new()
        .chain_update(seed.to_be_bytes())
        .chain_update(session.to_be_bytes())
        .chain_update(purpose)
        .finalize();
    let mut drawn = [0; N];
    for (place, byte) in drawn.iter_mut().zip(digest) {
        *place = byte;
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ_by_seed_session_and_purpose_only() {
        let draw = |seed, session, purpose| bytes::<16>(seed, session, purpose);
        assert_eq!(draw(1, 2, "salt"), draw(1, 2, "salt"));
        assert_ne!(draw(1, 2, "salt"), draw(2, 2, "salt"));
        assert_ne!(draw(1, 2, "salt"), draw(1, 3, "salt"));
        assert_ne!(draw(1, 2, "salt"), draw(1, 2, "nonce"));
    }
}
