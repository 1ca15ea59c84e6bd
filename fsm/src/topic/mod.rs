//! RivvenTopic.
