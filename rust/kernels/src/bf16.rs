//! bfloat16 as stored by tensors: the high half of an f32.

/// One bfloat16 value, bits as in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

impl Bf16 {
    /// Round to nearest, ties to even; a NaN stays a (quiet) NaN.
    pub fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        if value.is_nan() {
            return Self(((bits >> 16) | 0x40) as u16);
        }
        let round = 0x7FFF + ((bits >> 16) & 1);
        Self((bits.wrapping_add(round) >> 16) as u16)
    }

    /// The same value, exactly.
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::Bf16;

    #[test]
    fn rounds_to_nearest_even() {
        assert_eq!(Bf16::from_f32(1.0).0, 0x3F80);
        // 1 + 2^-8 lies between 1 and 1 + 2^-7: the tie goes to the even one.
        assert_eq!(Bf16::from_f32(1.0 + 1.0 / 256.0).0, 0x3F80);
        assert_eq!(Bf16::from_f32(1.0 + 3.0 / 256.0).0, 0x3F82);
        assert_eq!(Bf16::from_f32(f32::INFINITY).0, 0x7F80);
        assert_eq!(Bf16::from_f32(f32::MAX).0, 0x7F80);
        assert!(Bf16::from_f32(f32::NAN).to_f32().is_nan());
    }
}
