//! `gen_random_uuid()`: a UUID of version 4, another one for each row.

use std::sync::Arc;

use arrow::array::FixedSizeBinaryArray;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use event::UUID_BYTES;

/// The function.
pub(crate) fn gen_random_uuid() -> ScalarUDF {
    ScalarUDF::from(RandomUuid(Signature::nullary(Volatility::Volatile)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RandomUuid(Signature);

impl ScalarUDFImpl for RandomUuid {
    fn name(&self) -> &'static str {
        "gen_random_uuid"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::FixedSizeBinary(UUID_BYTES))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let uuids = (0..arguments.number_rows).map(|_| {
            let mut bytes: [u8; 16] = rand::random();
            // Version 4, variant of RFC 9562.
            bytes[6] = (bytes[6] & 0x0f) | 0x40;
            bytes[8] = (bytes[8] & 0x3f) | 0x80;
            Some(bytes)
        });
        let uuids = FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids, UUID_BYTES)?;
        Ok(ColumnarValue::Array(Arc::new(uuids)))
    }
}
