//! Which objects of Python's are the values of a column of Arrow's?

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use hashbrown::HashMap;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PyString};

/// Its values, in order; `None` where there is none.
pub fn of<'py>(py: Python<'py>, array: &ArrayRef) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let none = || py.None().into_bound(py);
    Ok(match array.data_type() {
        DataType::Int64 => {
            each(array.as_primitive::<Int64Type>(), none, |n| PyInt::new(py, n).into_any())
        }
        DataType::UInt64 => {
            each(array.as_primitive::<UInt64Type>(), none, |n| PyInt::new(py, n).into_any())
        }
        DataType::Float64 => {
            each(array.as_primitive::<Float64Type>(), none, |x| PyFloat::new(py, x).into_any())
        }
        DataType::Boolean => {
            each(array.as_boolean(), none, |b| PyBool::new(py, b).to_owned().into_any())
        }
        DataType::Utf8 => {
            // Most texts come again and again.
            let mut known = HashMap::new();
            each(array.as_string::<i32>(), none, |text| {
                let object =
                    known.entry(text).or_insert_with(|| PyString::new(py, text).into_any());
                object.clone()
            })
        }
        DataType::Binary => {
            each(array.as_binary::<i32>(), none, |bytes| PyBytes::new(py, bytes).into_any())
        }
        DataType::List(_) => {
            let mut lists = Vec::with_capacity(array.len());
            for list in array.as_list::<i32>() {
                lists.push(match list {
                    Some(list) => PyList::new(py, of(py, &list)?)?.into_any(),
                    None => none(),
                });
            }
            lists
        }
        _ => std::iter::repeat_with(none).take(array.len()).collect(),
    })
}

/// The values of arrays as one list.
pub fn list<'py>(py: Python<'py>, arrays: &[&ArrayRef]) -> PyResult<Bound<'py, PyList>> {
    let mut values = Vec::new();
    for array in arrays {
        values.append(&mut of(py, array)?);
    }
    PyList::new(py, values)
}

fn each<'py, T>(
    values: impl IntoIterator<Item = Option<T>>,
    none: impl Fn() -> Bound<'py, PyAny>,
    mut object: impl FnMut(T) -> Bound<'py, PyAny>,
) -> Vec<Bound<'py, PyAny>> {
    values.into_iter().map(|value| value.map_or_else(&none, &mut object)).collect()
}
