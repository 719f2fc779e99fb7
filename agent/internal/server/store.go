package server

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
)

// backupChunk is how much of a backup one message carries.
const backupChunk = 256 << 10

func (s machineService) StoreStatus(ctx context.Context, _ *connect.Request[uncloudv1.StoreStatusRequest]) (*connect.Response[uncloudv1.StoreStatusResponse], error) {
	m, err := s.host.Arriving()
	if err != nil {
		return nil, err
	}
	res, err := m.Store.Status(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res), nil
}

func (s machineService) CheckStore(ctx context.Context, _ *connect.Request[uncloudv1.CheckStoreRequest]) (*connect.Response[uncloudv1.CheckStoreResponse], error) {
	m, err := s.host.Arriving()
	if err != nil {
		return nil, err
	}
	res, err := m.Store.Check(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res), nil
}

func (s machineService) BackupStore(ctx context.Context, _ *connect.Request[uncloudv1.BackupStoreRequest], stream *connect.ServerStream[uncloudv1.BackupStoreResponse]) (err error) {
	m, err := s.host.Member()
	if err != nil {
		return err
	}
	about, content, err := m.Store.Backup(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	if err := stream.Send(&uncloudv1.BackupStoreResponse{Backup: about}); err != nil {
		return err
	}
	buf := make([]byte, backupChunk)
	for {
		n, err := io.ReadFull(content, buf)
		if n > 0 {
			if err := stream.Send(&uncloudv1.BackupStoreResponse{Chunk: buf[:n]}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func (s machineService) RestoreStore(ctx context.Context, stream *connect.ClientStream[uncloudv1.RestoreStoreRequest]) (*connect.Response[uncloudv1.RestoreStoreResponse], error) {
	if !stream.Receive() {
		return nil, errors.Join(stream.Err(), faults.New(faults.Invalid, "the backup ended before it began").WithHint("try again: uc store restore FILE"))
	}
	first := stream.Msg()
	if first.GetBackup() == nil {
		return nil, faults.New(faults.Invalid, "the first message of a restore must describe the backup").WithHint(otherVersion)
	}
	opts := RestoreOptions{Backup: first.GetBackup(), Adopt: first.GetAdopt()}
	res, err := s.host.RestoreStore(ctx, opts, &restoreReader{stream: stream})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res), nil
}

// restoreReader reads the content of a backup from the messages that carry it.
type restoreReader struct {
	stream *connect.ClientStream[uncloudv1.RestoreStoreRequest]
	rest   []byte
}

func (r *restoreReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if !r.stream.Receive() {
			if err := r.stream.Err(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		r.rest = r.stream.Msg().GetChunk()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
