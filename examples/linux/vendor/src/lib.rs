// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nothing: this package is its manifest and its lock.
#![no_std]
