package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/api/uncloud/v1/uncloudv1connect"
)

// chunkSize is how much of a layer one message holds. Larger ones cost memory
// on each machine they pass, smaller ones cost messages.
const chunkSize = 256 << 10

// Result is what a push to one machine came to.
type Result struct {
	ID     string // of the image, as the machine's engine knows it
	Layers int    // that were sent
	Bytes  int64  // of these layers
}

// To sends to a machine what it lacks of the image, and has it known there
// under name. sent is told of each chunk; it may be nil.
func To(ctx context.Context, machine uncloudv1connect.MachineServiceClient, image *Image, name string, sent func(bytes int64)) (Result, error) {
	missing, err := lacking(ctx, machine, image)
	if err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream where a layer cannot be read
	stream := machine.PushImage(ctx)
	var result Result
	err = stream.Send(&uncloudv1.PushImageRequest{Start: &uncloudv1.PushImageStart{Name: name, Manifest: image.Manifest, Config: image.Config}})
	for _, layer := range missing {
		if err != nil {
			break
		}
		err = sendLayer(stream, layer, sent)
		result.Layers++
		result.Bytes += layer.Size
	}
	// A machine that refuses ends the stream, which a send sees only as its
	// end; why is in the answer.
	if err != nil && !errors.Is(err, io.EOF) {
		return Result{}, err
	}
	answer, err := stream.CloseAndReceive()
	if err != nil {
		return Result{}, err
	}
	result.ID = answer.Msg.GetId()
	return result, nil
}

// lacking are the layers that the machine does not have.
func lacking(ctx context.Context, machine uncloudv1connect.MachineServiceClient, image *Image) ([]Layer, error) {
	request := &uncloudv1.HasBlobsRequest{}
	for _, l := range image.Layers {
		request.Digests = append(request.Digests, l.Digest)
	}
	answer, err := machine.HasBlobs(ctx, connect.NewRequest(request))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(image.Layers), func(l Layer) bool {
		return slices.Contains(answer.Msg.GetPresent(), l.Digest)
	}), nil
}

type pushStream = connect.ClientStreamForClient[uncloudv1.PushImageRequest, uncloudv1.PushImageResponse]

// sendLayer names the layer in a message of its own, and sends its content in
// those that follow.
func sendLayer(stream *pushStream, layer Layer, sent func(int64)) error {
	content, err := layer.open()
	if err != nil {
		return fmt.Errorf("layer %s: %w", layer.Digest, err)
	}
	if err := stream.Send(&uncloudv1.PushImageRequest{Digest: layer.Digest}); err != nil {
		return err
	}
	buffer := make([]byte, chunkSize)
	for {
		n, readErr := io.ReadFull(content, buffer)
		if n > 0 {
			if err := stream.Send(&uncloudv1.PushImageRequest{Chunk: buffer[:n]}); err != nil {
				return err
			}
			if sent != nil {
				sent(int64(n))
			}
		}
		switch {
		case errors.Is(readErr, io.EOF), errors.Is(readErr, io.ErrUnexpectedEOF):
			return nil
		case readErr != nil:
			return fmt.Errorf("layer %s: %w", layer.Digest, readErr)
		}
	}
}
