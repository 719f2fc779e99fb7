// Package connect reaches a machine's API: over its unix socket, or over SSH
// with the system's own ssh, which runs `uncloudd dial-stdio` there.
//
// It owns how a connection is chosen (flag, environment, context, default),
// the file that holds contexts, and the turning of what failed on the way into
// faults. It keeps no password or key, opens no port, and speaks nothing but
// HTTP/2 without TLS: the socket's mode or SSH protects the bytes.
package connect
