// Package push sends an image from this computer to machines without a
// registry: it reads an archive of the image, asks a machine which layers it
// lacks, and sends those.
//
// It owns the reading of archives (OCI and Docker layout, with or without gzip)
// and the order of messages of a push. It refuses to talk to an engine other
// than by running `podman save`, and holds no more of a layer in memory than
// one chunk: an archive stays on disk, and layers are read from where they lie
// in it.
package push
