package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/spec"
)

// adopt writes what a backup has and the cluster does not, as changes of its
// own: what was removed since the backup is there again, everywhere.
func (m *member) adopt(ctx context.Context, from *spec.State) (*uncloudv1.RestoreStoreResponse, error) {
	if _, err := m.api(); err != nil {
		return nil, err
	}
	var got adoption
	_, err := m.store.Update(ctx, func(tx *storeTx) error {
		got = adopted(from, tx.State())
		tx.Put(got.rows...)
		if len(got.services) > 0 {
			m.tell(tx, "store.adopted", m.id.MachineID, fmt.Sprintf("%d services of a backup were taken in", len(got.services)))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &uncloudv1.RestoreStoreResponse{Site: m.store.Site().String(), Adopted: got.services, Kept: got.kept}, nil
}

// adoption is what is taken out of a backup.
type adoption struct {
	rows           []spec.Row
	services, kept []string // project/service, in order
}

// adopted chooses what a cluster takes in of another state: the services that
// it lacks, with their projects and revisions, and volumes that are on machines
// of its own. Where replicas run follows from that as after any deploy; what a
// machine of the other state ran is no concern of this one.
func adopted(from, into *spec.State) adoption {
	var a adoption
	projects := map[string]bool{}
	for id, svc := range from.Services {
		name := svc.Project + "/" + svc.Name
		if _, here := into.Services[id]; here {
			a.kept = append(a.kept, name)
			continue
		}
		if _, whole := from.Revisions[svc.Revision]; !whole {
			continue // its spec had not arrived when the backup was made
		}
		a.services, projects[svc.Project] = append(a.services, name), true
		a.rows = append(a.rows, svc)
		for _, rev := range from.Revisions {
			if rev.Service == id {
				a.rows = append(a.rows, rev)
			}
		}
	}
	for id, p := range from.Projects {
		if _, here := into.Projects[id]; !here && projects[p.Name] {
			a.rows = append(a.rows, p)
		}
	}
	for id, v := range from.Volumes {
		_, here := into.Volumes[id]
		if _, member := into.Machines[v.Machine]; member && !here && projects[v.Project] {
			a.rows = append(a.rows, v)
		}
	}
	slices.Sort(a.services)
	slices.Sort(a.kept)
	slices.SortFunc(a.rows, func(x, y spec.Row) int {
		return cmp.Or(cmp.Compare(x.Table(), y.Table()), cmp.Compare(x.Key(), y.Key()))
	})
	return a
}
