//! Strided views: a matrix inside a wider one.

use crate::error::{KernelError, check_size, check_value};

/// `rows` rows of `width` elements, `stride` apart: a column range of a wider row-major matrix.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a, T> {
    data: &'a [T],
    len: usize,
    width: usize,
    stride: usize,
}

/// Elements from the first of row 0 to the last of row `rows - 1`.
pub(crate) fn span(rows: usize, width: usize, stride: usize) -> usize {
    if rows == 0 {
        0
    } else {
        (rows - 1) * stride + width
    }
}

impl<'a, T> Rows<'a, T> {
    /// A view of `data`, which starts at element 0 of row 0.
    ///
    /// # Errors
    /// [`KernelError`] when `data` is too short or rows overlap.
    pub fn new(
        name: &'static str,
        data: &'a [T],
        rows: usize,
        width: usize,
        stride: usize,
    ) -> Result<Self, KernelError> {
        check_value(
            name,
            stride as i64,
            rows <= 1 || stride >= width,
            "a row stride >= width",
        )?;
        check_size(name, data.len(), span(rows, width, stride))?;
        Ok(Self {
            data,
            len: rows,
            width,
            stride,
        })
    }

    /// A view of the whole of `data` as `rows` contiguous rows.
    ///
    /// # Errors
    /// [`KernelError`] when `data` is too short.
    pub fn contiguous(
        name: &'static str,
        data: &'a [T],
        rows: usize,
        width: usize,
    ) -> Result<Self, KernelError> {
        Self::new(name, data, rows, width, width)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Elements from one row's start to the next one's.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `index`.
    ///
    /// # Panics
    /// Panics when `index >= len()`.
    pub fn row(&self, index: usize) -> &'a [T] {
        assert!(index < self.len, "row {index} of {}", self.len);
        &self.data[index * self.stride..index * self.stride + self.width]
    }

    /// Address of the first element.
    pub(crate) fn ptr_start(&self) -> *const T {
        self.data.as_ptr()
    }

    /// Address of element 0 of row `index`; valid for `width` elements when `index < len()`.
    #[inline(always)]
    pub(crate) fn ptr(&self, index: usize) -> *const T {
        debug_assert!(index < self.len);
        self.data.as_ptr().wrapping_add(index * self.stride)
    }
}

/// [`Rows`] to write to.
#[derive(Debug)]
pub struct RowsMut<'a, T> {
    data: &'a mut [T],
    len: usize,
    width: usize,
    stride: usize,
}

impl<'a, T> RowsMut<'a, T> {
    /// See [`Rows::new`].
    ///
    /// # Errors
    /// [`KernelError`] when `data` is too short or rows overlap.
    pub fn new(
        name: &'static str,
        data: &'a mut [T],
        rows: usize,
        width: usize,
        stride: usize,
    ) -> Result<Self, KernelError> {
        Rows::new(name, &*data, rows, width, stride)?;
        Ok(Self {
            data,
            len: rows,
            width,
            stride,
        })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Elements from one row's start to the next one's.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The same rows, to read from.
    pub fn rows(&self) -> Rows<'_, T> {
        Rows {
            data: self.data,
            len: self.len,
            width: self.width,
            stride: self.stride,
        }
    }

    /// Address of the first element.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.data.as_mut_ptr()
    }
}
