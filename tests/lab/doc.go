// Package lab makes real machines on one Linux host: each is a set of
// namespaces with systemd as PID 1, a disk of its own, Podman, and a network
// card on a common underlay that can be cut and healed.
//
// It owns everything that a lab leaves on the host: network namespaces and
// cgroups called uclab-LAB..., disks below the state directory, and a cached
// root tree. It refuses to know anything of the product but how to install it
// (packaging/, nix/golden), how to start a cluster with its commands, and how to ask it
// whether all machines are up. Promises are tested in package stories.
//
// There is no file that says what a lab is: a machine exists when its disk
// does, runs when its PID 1 does, and a cut is an element of the underlay's
// nftables set. So a lab whose owner was killed can be opened, used and taken
// down by anybody.
//
// Limits of machines made of namespaces: boot_id is the host's and stays over
// a power cut, a power cut loses no unsynced pages, and on a host with a
// hybrid cgroup tree memory, cpu and pids limits are not enforced.
package lab
