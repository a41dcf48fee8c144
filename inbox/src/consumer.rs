use std::fmt;

/// The name under which a service keeps its operations, for example `billing`: 1 to 255 bytes, no
/// control characters.
///
/// Two consumers with different names each apply an operation once. Stored for ever: renaming a
/// consumer makes it forget what it has applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Consumer<'a>(pub &'a str);

impl fmt::Display for Consumer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
