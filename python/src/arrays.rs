//! How does a column of Arrow's become an array of numpy's?
//!
//! By its bytes, which numpy takes as they are.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{ArrowPrimitiveType, Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array as _, ArrayRef};
use arrow_schema::{DataType, Field};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::objects;

/// A column's name, its type as numpy names it or else `text` or `object`, its values (the bytes of an array,
/// or a list), and of arrays where a value is missing, if any is.
pub type Parts<'py> = (String, &'static str, Bound<'py, PyAny>, Option<Bound<'py, PyBytes>>);

/// Of the column `field` with the values of these arrays.
pub fn parts<'py>(py: Python<'py>, field: &Field, arrays: &[&ArrayRef]) -> PyResult<Parts<'py>> {
    let (kind, bytes) = match field.data_type() {
        DataType::Int64 => ("int64", numbers::<Int64Type, 8>(arrays, i64::to_ne_bytes)),
        DataType::UInt64 => ("uint64", numbers::<UInt64Type, 8>(arrays, u64::to_ne_bytes)),
        DataType::Float64 => ("float64", floats(arrays)),
        DataType::Boolean => ("bool", booleans(arrays)),
        other => {
            let kind = if *other == DataType::Utf8 { "text" } else { "object" };
            let values = objects::list(py, arrays)?.into_any();
            return Ok((field.name().clone(), kind, values, None));
        }
    };
    // Floats have a value of their own for it.
    let has_missing = kind != "float64" && arrays.iter().any(|array| array.null_count() > 0);
    let missing = has_missing.then(|| {
        let each = arrays.iter().flat_map(|array| (0..array.len()).map(|i| array.is_null(i)));
        PyBytes::new(py, &each.map(u8::from).collect::<Vec<_>>())
    });
    Ok((field.name().clone(), kind, PyBytes::new(py, &bytes).into_any(), missing))
}

/// The bytes of numbers; 0 where there is none.
fn numbers<T: ArrowPrimitiveType, const N: usize>(
    arrays: &[&ArrayRef],
    bytes: impl Fn(T::Native) -> [u8; N],
) -> Vec<u8> {
    let all = arrays.iter().flat_map(|array| array.as_primitive::<T>().values().iter());
    all.flat_map(|n| bytes(*n)).collect()
}

/// The bytes of floats; NaN where there is none.
fn floats(arrays: &[&ArrayRef]) -> Vec<u8> {
    let all = arrays.iter().flat_map(|array| array.as_primitive::<Float64Type>().iter());
    all.flat_map(|x| x.unwrap_or(f64::NAN).to_ne_bytes()).collect()
}

/// 1 for true, 0 else.
fn booleans(arrays: &[&ArrayRef]) -> Vec<u8> {
    let all = arrays.iter().flat_map(|array| array.as_boolean().iter());
    all.map(|b| u8::from(b == Some(true))).collect()
}
