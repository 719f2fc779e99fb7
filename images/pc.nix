# Any computer, where an image for a VPS knows which.
{ hardware.enableRedistributableFirmware = true; }
