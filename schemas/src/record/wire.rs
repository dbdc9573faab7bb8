//! The fields of one protobuf message, one after another.

use super::DecodeError;

/// A field's value, by wire type.
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// Iterates over the fields of one message; refuses repeats. Field numbers of the schema are below 32.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    seen: u32,
}

impl<'a> Fields<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Fields { rest, seen: 0 }
    }

    #[inline]
    pub(super) fn next_field(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| DecodeError::Malformed)?;
        if number == 0 || number >= 32 {
            return Err(DecodeError::UnknownField(number));
        }
        if self.seen & (1 << number) != 0 {
            return Err(DecodeError::RepeatedField(number));
        }
        self.seen |= 1 << number;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                let (bytes, rest) = self.rest.split_first_chunk::<8>().ok_or(DecodeError::Malformed)?;
                self.rest = rest;
                Value::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| DecodeError::Malformed)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Malformed)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            _ => return Err(DecodeError::UnknownField(number)),
        };
        Ok(Some((number, value)))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                if index == 9 && byte > 1 {
                    return Err(DecodeError::Malformed);
                }
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed)
    }
}
