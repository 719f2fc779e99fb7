// Package firstboot tells a flashed machine who it is: it reads uncloud.txt
// from a volume that any computer can write, puts what it says on the
// machine's own disk, takes the secrets off the volume, and applies it. It
// refuses a file that it does not understand whole, and it never stops a boot:
// whatever goes wrong becomes a sentence.
//
// The order of the steps is what makes it safe against a loss of power at any
// point. See docs/first-boot.md for them; disk.go lists the operations between
// which the tests cut the power.
//
// What a ticket is, who is a member and where the files of the agent lie is
// told by the composition root (Options).
package firstboot
