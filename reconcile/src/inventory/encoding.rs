//! Ceph's binary encoding: little-endian integers, length-prefixed strings, structs with version and length.

/// A value that is not encoded as expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

pub(crate) type Result<T> = std::result::Result<T, Malformed>;

/// Reads values from the front of a buffer.
pub(crate) struct Decoder<'a>(pub(crate) &'a [u8]);

impl<'a> Decoder<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(crate) fn string(&mut self) -> Result<String> {
        let length = self.u32()?;
        let bytes = self.take(usize::try_from(length).map_err(|_| Malformed)?)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
    }

    /// Seconds and nanoseconds since 1970.
    pub(crate) fn time(&mut self) -> Result<jiff::Timestamp> {
        let (seconds, nanoseconds) = (self.u32()?, self.u32()?);
        jiff::Timestamp::new(seconds.into(), i32::try_from(nanoseconds).map_err(|_| Malformed)?).map_err(|_| Malformed)
    }

    /// A struct: its version, the oldest version whose readers understand it, and its body. What the body has beyond what
    /// is read is skipped, as versions that are only newer intend it.
    pub(crate) fn versioned(&mut self) -> Result<(u8, u8, Decoder<'a>)> {
        let (version, compat) = (self.u8()?, self.u8()?);
        let length = self.u32()?;
        let body = self.take(usize::try_from(length).map_err(|_| Malformed)?)?;
        Ok((version, compat, Decoder(body)))
    }
}

/// A single integer, which must fill the value.
pub(crate) fn u64_value(value: &[u8]) -> Result<u64> {
    value.try_into().map(u64::from_le_bytes).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_short_is_malformed() {
        assert_eq!(Decoder(b"\x03\0\0\0abc").string(), Ok("abc".to_owned()));
        assert_eq!(Decoder(b"\x04\0\0\0abc").string(), Err(Malformed));
        assert_eq!(Decoder(b"\xff\xff\xff\xff").string(), Err(Malformed));
        assert_eq!(u64_value(b"\x01\0\0\0\0\0\0\0"), Ok(1));
        assert_eq!(u64_value(b"\x01"), Err(Malformed));
    }

    #[test]
    fn a_newer_struct_is_read_as_far_as_it_is_known() {
        let mut outer = Decoder(b"\x02\x01\x05\0\0\0\x07newer");
        let (version, compat, mut body) = outer.versioned().unwrap();
        assert_eq!((version, compat, body.u8()), (2, 1, Ok(7)));
        assert_eq!(outer.0, b"r");
    }
}
