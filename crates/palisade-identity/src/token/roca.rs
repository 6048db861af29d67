//! RSA keys of a chip whose primes are guessable (CVE-2017-15361, "ROCA").
//!
//! The primes are powers of 65537 modulo a product of small primes, so the modulus is too: modulo each small prime it
//! lies in the subgroup that 65537 generates. A sound key does so by chance once in 2²⁷.

const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Whether a modulus (big-endian) has the fingerprint.
pub(super) fn is_suspicious(modulus: &[u8]) -> bool {
    PRIMES.iter().all(|&prime| {
        let residue = modulus.iter().fold(0, |rest, &byte| (rest * 256 + u32::from(byte)) % prime);
        let generator = 65_537 % prime;
        let mut power = 1;
        loop {
            if power == residue {
                return true;
            }
            power = power * generator % prime;
            if power == 1 {
                return false;
            }
        }
    })
}
