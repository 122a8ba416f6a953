//! What the fuzz targets share: what must hold of any bytes whatever.

pub mod feed;
pub mod packet;
