// Package images moves container images to this machine without a registry. It owns a spool of layers, each in a file
// named by its digest, and turns one push into one archive that the container engine loads. It refuses to be a registry:
// it serves nobody, it keeps no catalogue of images, and what the spool holds may be thrown away at any moment at the
// price of sending it again.
//
// A layer has two digests: that of the bytes that are sent, which may be compressed, and that of the tar file in them,
// its diff id. The engine tells only diff ids. Once an image is loaded, the engine has its layers, so the spool gives up
// its own copies and remembers, in a symbolic link, to which diff id the sent bytes unpack.
//
// Nothing here runs by itself: without a push, nothing is read or written.
package images
