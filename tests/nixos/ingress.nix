# one is an ingress and runs nothing, two runs replicas and is no ingress, and
# three is no member: it is where requests come from.
{
  one.services.uncloud.roles = [ "ingress" ];
  two.services.uncloud.roles = [ "worker" ];
  three = { };
}
