//! RivvenConnect.
