//! Counter-based noise: Philox4x32-10 (Salmon et al. 2011), one uniform a token.

/// Output function of splitmix64 (Steele, Lea & Flood 2014).
pub fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The key of one trace of one request; purpose 0 is token sampling.
pub fn key(seed: u64, trace_index: u64, purpose: u64) -> u64 {
    mix(mix(mix(seed) ^ trace_index) ^ purpose)
}

/// The four words of Philox4x32-10.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let low = u64::from(counter[0]) * 0xD251_1F53;
        let high = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (high >> 32) as u32 ^ counter[1] ^ key[0],
            high as u32,
            (low >> 32) as u32 ^ counter[3] ^ key[1],
            low as u32,
        ];
        key = [
            key[0].wrapping_add(0x9E37_79B9),
            key[1].wrapping_add(0xBB67_AE85),
        ];
    }
    counter
}

/// The uniform in [0, 1) of (key, absolute position of the token).
pub fn uniform(key: u64, position: u64) -> f64 {
    let counter = [position as u32, (position >> 32) as u32, 0, 0];
    let [x0, x1, ..] = philox(counter, [key as u32, (key >> 32) as u32]);
    let bits = u64::from(x0 >> 5) * (1 << 26) + u64::from(x1 >> 6);
    bits as f64 / 9_007_199_254_740_992.0
}

#[cfg(test)]
mod tests {
    use super::{philox, uniform};

    #[test]
    fn equals_the_published_vectors() {
        // Random123's kat_vectors for philox4x32 10.
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn uniforms_fill_the_unit_interval() {
        let mean = (0..4096).map(|i| uniform(7, i)).sum::<f64>() / 4096.0;
        assert!((mean - 0.5).abs() < 0.02);
        assert!((0..4096).all(|i| (0.0..1.0).contains(&uniform(9, i))));
    }
}
