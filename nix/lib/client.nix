# What a unit is confined to that runs `uc` against the agent's socket, and needs nothing else.
{
  DynamicUser = true;
  SupplementaryGroups = [ "uncloud" ];
  ProtectHome = true;
  CapabilityBoundingSet = "";
  RestrictAddressFamilies = [ "AF_UNIX" ];
  SystemCallArchitectures = "native";
}
