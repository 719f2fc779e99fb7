package firstboot

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// called is what other tools and other people call a key.
var called = map[string]string{
	"hostname": "name", "host": "name", "machine": "name", "ssid": "wifi", "wlan": "wifi", "password": "wifi", "passphrase": "wifi", "psk": "wifi",
	"ssh": "key", "sshkey": "key", "authorized": "key", "ip": "address", "static": "address", "dhcp": "address", "router": "gateway",
	"nameserver": "dns", "resolver": "dns", "tz": "timezone", "time": "timezone", "zone": "timezone", "region": "country",
	"tag": "label", "roles": "role", "labels": "label", "keys": "key", "token": "ticket", "join": "ticket",
}

// unknownKey says that there is no such key, and which was meant.
func unknownKey(name string) error {
	if name == "" {
		return fmt.Errorf(`there is nothing before "=": write KEY = VALUE`)
	}
	if len(name) > 40 {
		// Not a key but something else, perhaps a secret: it is not repeated.
		return fmt.Errorf(`what is before "=" is no key: write KEY = VALUE`)
	}
	if meant := nearest(name); meant != "" {
		return fmt.Errorf("there is no key %q: did you mean %s?", name, meant)
	}
	return fmt.Errorf("there is no key %q: use %s", name, strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
}

// nearest is the key that was meant; empty where none is near.
func nearest(name string) string {
	for _, word := range append([]string{name}, strings.FieldsFunc(name, func(r rune) bool { return r == '_' || r == '-' || r == ' ' || r == '.' })...) {
		if meant, ok := called[word]; ok {
			return meant
		}
		if _, ok := keys[word]; ok {
			return word
		}
	}
	best, least := "", 3
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if d := distance(name, k); d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// distance is how many letters have to be put, dropped, changed or swapped
// with their neighbour to make b of a.
func distance(a, b string) int {
	var two []int
	one := make([]int, len(b)+1)
	for j := range one {
		one[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := one[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(one[j]+1, row[j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], two[j-2]+1)
			}
		}
		two, one = one, row
	}
	return one[len(b)]
}
