package statesync

import (
	"encoding/binary"
	"maps"
	"slices"

	"uncloud/agent/internal/crdt"
)

func appendSums(b []byte, f sums) []byte {
	b = appendFlags(binary.AppendUvarint(b, f.Known), f.Detail)
	b = binary.AppendUvarint(b, uint64(len(f.Tables)))
	for _, table := range slices.Sorted(maps.Keys(f.Tables)) {
		b = binary.AppendUvarint(appendText(b, table), uint64(len(f.Tables[table])))
		for _, sum := range f.Tables[table] {
			b = binary.BigEndian.AppendUint64(b, sum)
		}
	}
	return b
}

func parseSums(d *crdt.Decoder) sums {
	f := sums{Known: d.Uvarint(), Detail: d.Byte()&1 != 0, Tables: map[string][]uint64{}}
	for range d.Count(2) {
		table := d.Text()
		list := make([]uint64, d.Count(8))
		for i := range list {
			if b := d.Bytes(8); b != nil {
				list[i] = binary.BigEndian.Uint64(b)
			}
		}
		f.Tables[table] = list[:min(len(list), bucketCount)]
	}
	return f
}

func appendMend(b []byte, f mend) []byte {
	b = binary.AppendUvarint(b, uint64(len(f.Buckets)))
	for _, table := range slices.Sorted(maps.Keys(f.Buckets)) {
		b = binary.AppendUvarint(appendText(b, table), uint64(len(f.Buckets[table])))
		b = append(b, f.Buckets[table]...)
	}
	return b
}

func parseMend(d *crdt.Decoder) mend {
	f := mend{Buckets: map[string][]byte{}}
	for range d.Count(2) {
		table := d.Text()
		f.Buckets[table] = append([]byte{}, d.Bytes(d.Uvarint())...)
	}
	return f
}
