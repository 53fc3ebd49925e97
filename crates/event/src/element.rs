//! What the arrays of a column hold.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef};
use serde::{Deserialize, Serialize};

use crate::types::ColumnType;

/// The type of an array's elements: any but that of arrays, since they have one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "ColumnType", try_from = "ColumnType")]
pub struct ElementType {
    /// As formats know it: a type cannot hold itself.
    code: [u8; 3],
}

impl ElementType {
    /// `None` for the type of arrays.
    pub fn new(column_type: ColumnType) -> Option<ElementType> {
        match column_type {
            ColumnType::Array(_) => None,
            other => Some(ElementType { code: other.code() }),
        }
    }

    /// The type.
    pub fn get(self) -> ColumnType {
        ColumnType::from_code(self.code).expect("it was made of a type")
    }

    /// The Arrow field of the elements, named as Arrow names them.
    pub fn field(self) -> FieldRef {
        Arc::new(self.get().field(Field::LIST_FIELD_DEFAULT_NAME, true))
    }
}

impl From<ElementType> for ColumnType {
    fn from(element: ElementType) -> ColumnType {
        element.get()
    }
}

impl TryFrom<ColumnType> for ElementType {
    type Error = &'static str;

    fn try_from(column_type: ColumnType) -> Result<ElementType, &'static str> {
        ElementType::new(column_type).ok_or("arrays have one dimension")
    }
}
