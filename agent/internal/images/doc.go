// Package images moves container images to this machine without a registry. It owns a spool of layers, each in a file
// named by its digest, and turns one push into one archive that the container engine loads. It refuses to be a registry:
// it serves nobody, it keeps no catalogue of images, and what the spool holds may be thrown away at any moment at the
// price of sending it again.
package images
