// Package hostos owns the NixOS generations of this machine: it lists them, and
// takes the machine from one to another in an attempt that ends in one of two
// ways, confirmed or returned. It refuses to change a system that is not NixOS,
// and to make a generation the default that nobody has confirmed. It knows
// nothing of other machines: who confirms, and when, is the agent's business.
//
// # Two processes
//
// The agent is restarted by a switch and is not allowed to do one, so an attempt
// belongs to a process of its own: "uncloudd host run", the unit
// uncloud-host.service, which is root, is left alone by a switch, and ends when
// there is nothing to do. It is started by uncloud-host.path while an order
// waits, and at every boot. The two speak through files of /var/lib/uncloud-host,
// each of which has one writer and is replaced atomically and durably:
//
//	orders/ID.json   the agent: what it wants of attempt ID (Order): to begin,
//	                 then to go on, to keep the generation, or to give it up.
//	                 The host process removes it when the attempt has ended.
//	attempt.json     the host process: the journal of the attempt (Attempt),
//	                 written before each step, and kept when it has ended
//	staged           a link to the system of the attempt, which is a root of the
//	                 garbage collector; it is removed when the attempt has ended
//
// # An attempt
//
//	staging    the system is built or fetched, within a bound, and looked at;
//	           nothing changes
//	staged     waits for the order to go on: the agent moves replicas away first
//	trying     "switch-to-configuration test", within the time for a
//	           confirmation: the system runs, but it is not the default, so a
//	           machine that loses power comes back as it was
//	arming     with a restart instead: the system becomes the default
//	restarting and the machine restarts
//	watching   the new system runs and waits to be confirmed, within a time
//	keeping    it is confirmed: it becomes the default, if it is not
//	returning  the former system runs and is the default again, if need be after
//	           another restart; the generation that the attempt made is deleted
//	done, failed
//
// What comes next is a pure function (Next) of the journal, the orders and what
// is seen of the machine. A process that is started anew in the same boot
// repeats the step that the journal names: each may be repeated. A machine that
// was started anew in the middle of an attempt goes on only if it booted the new
// system, was meant to, and did so for the first time; everything else returns.
//
// A system that a person activates in the meantime stays, whatever the attempt
// is at.
//
// # What the boot loader boots
//
// That of systemd-boot keeps as many of the newest generations as its
// configurationLimit says. So what failed is deleted before the boot loader is
// told of the way back: otherwise three failures would push out what works, and
// what did not fit the partition would not fit again. The journal has the
// profile's highest number of the moment before the default was touched; what
// is above it and leads to the attempt's system is the attempt's. Where the boot
// loader cannot be told it may name that system, which is a generation again
// then, so that the garbage collector leaves it.
//
// For a generation that is older than those that it keeps, systemd-boot's
// builder ends well and changes nothing. So its configuration is read, where
// that is what booted the machine, and such a generation is made anew with the
// next number. Only then: a generation that can be booted keeps the number by
// which people know it, and a rollback after a rollback goes further back.
//
// The file systems of the store and of the profile are synced before the boot
// loader is told as well as afterwards: it must not name what a power cut takes.
//
// # What this package touches
//
// This is all, and so it is what a double of NixOS has to offer:
//
//	/etc/NIXOS                         its presence makes the host NixOS
//	/run/current-system                link to the system that runs
//	/run/booted-system                 link to the system that was booted
//	/nix/var/nix/profiles/system       link to the link of the default generation
//	/nix/var/nix/profiles/system-N-link  links to systems; the time of the link is
//	                                   when the generation was made. One is made by
//	                                   hand, without a program, where the boot loader
//	                                   could not be told of a way back
//	SYSTEM/nixos-version               such as 26.05.20260819.b18a4b9
//	SYSTEM/system                      such as x86_64-linux; another one is refused
//	SYSTEM/etc/systemd/system/uncloud.service, uncloud-host.service and
//	uncloud-host.path, and multi-user.target.wants/... for each of them
//	                                   a system without them is refused, and one in which
//	                                   they lead to /dev/null
//	.../uncloud-first-boot.service     a system without it is refused on a machine whose system
//	                                   has it, and that has keys, Wi-Fi or an address from
//	                                   uncloud.txt (/var/lib/uncloud-first-boot)
//	SYSTEM/bin/switch-to-configuration test
//	                                   runs the system now: units of /etc, and
//	                                   /run/current-system. The default stays
//	SYSTEM/bin/switch-to-configuration boot
//	                                   makes the boot loader boot the default
//	                                   generation of the profile; nothing else
//
//	/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f
//	                                   names systemd-boot where that booted the machine
//	/boot, /efi or /boot/efi: loader/loader.conf
//	                                   then: which generation it boots; only read
//
// Either switch may fail with any exit code; the last lines that it writes to standard
// output or error are shown to people. Other programs, found in PATH:
//
//	nix --extra-experimental-features "nix-command flakes" flake metadata
//	    --refresh --json FLAKE
//	nix --extra-experimental-features "nix-command flakes" build --refresh
//	    --out-link /var/lib/uncloud-host/staged --print-out-paths
//	    FLAKE#nixosConfigurations."NAME".config.system.build.toplevel
//	nix-store --realise PATH --add-root /var/lib/uncloud-host/staged
//	nix-env --profile /nix/var/nix/profiles/system --set SYSTEM
//	nix-env --profile /nix/var/nix/profiles/system --switch-generation N
//	nix-env --profile /nix/var/nix/profiles/system --delete-generations N...
//	systemctl reboot
//
// At boot the machine has to set both links in /run before uncloud-host.service
// and uncloud.service are started. Boots are told apart by
// /proc/sys/kernel/random/boot_id and by when process 1 began (/proc/1/stat).
package hostos
