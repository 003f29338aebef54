// SPDX-License-Identifier: MIT OR Apache-2.0
//! This package has no code: only its manifest and its lock file are used.
#![no_std]
