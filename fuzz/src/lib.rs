//! What the fuzz targets share: what must hold of any bytes whatever.

pub mod feed;
pub mod packet;

/// A fuzz target for one feed format: `feed!(Plain);` is the whole file.
#[macro_export]
macro_rules! feed {
    ($format:ident) => {
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            $crate::feed::check(matcher_user::feeds::Format::$format, bytes);
        });
    };
}
