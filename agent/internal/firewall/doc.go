// Package firewall turns a Policy into one nftables table, `inet uncloud`, and
// keeps it in the kernel. It owns that table, the flows that its rules began and
// the localhost forwarding switch of the bridge. It refuses to be the machine's
// firewall: it touches no other table, and what is neither the cluster's traffic
// nor an agent's port is left to whatever firewall the machine has.
//
// Compile is pure. Firewall holds a child `nft -i` open, because a table with
// the flags `owner, persist` belongs to the netlink socket that made it: while
// that socket lives nobody else can change or flush the table, and when it
// dies the table stays in force until the next owner adopts it. DESIGN.md says
// why each rule is there and what was refused.
package firewall
