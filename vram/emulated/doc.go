// Package emulated is a [vram.Device] in host memory: the default where there is
// no accelerator, and the device that tests run on. It keeps what the rest of
// Cairn sees of a device: addresses that the processor cannot use, copies that
// happen later on streams that run side by side, events, and errors that arrive
// with them. It takes no time beyond that of the copy itself.
//
// Its memory is mapped outside the Go heap and committed page by page as it is
// first written.
package emulated
