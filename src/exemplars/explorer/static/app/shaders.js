/** The programs that run on the graphics processor. Ids are region + 1; 0 is nothing. */

const HEAD = "#version 300 es\nprecision highp float;precision highp int;precision highp sampler2D;precision highp usampler2D;\n";

/** Where a pixel of the id buffer lies on the unit sphere, seen from +z without perspective; or, with
 * a span, unrolled about +z so that the distance from the middle is the angle, up to the span. The
 * sine and cosine of half the angle, 1.6 at most, are summed here: drivers may round theirs coarsely. */
const ON_SPHERE = `uniform mat3 turn;uniform vec2 middle;uniform float scale;uniform vec2 size;uniform float span;
vec4 onSphere(vec2 pixel){vec2 s=(pixel-middle)/scale;float rr=dot(s,s);if(rr>1.)return vec4(0.);
 if(span>0.){float r=sqrt(rr),h=.5*r*span,q=h*h;
  float u=h*(1.+q*(-1./6.+q*(1./120.+q*(-1./5040.+q*(1./362880.-q/39916800.)))));
  float v=1.-q*(.5-q*(1./24.-q*(1./720.-q*(1./40320.-q/3628800.))));
  return vec4(r>0.?s/r*(2.*u*v):vec2(0.),1.-2.*u*u,1.);}return vec4(s,sqrt(1.-rr),1.);}
vec4 clip(vec2 pixel){return vec4(pixel/size*2.-1.,0.,1.);}
`;

/** Exact spherical Voronoi cells: each fragment keeps its nearest exemplar through the depth test.
 * The depth is half the chord, which is linear in the angle. */
const NEAREST = `flat in vec3 centre;flat in float reach;flat in uint id;out uint o;
void main(){vec4 x=onSphere(gl_FragCoord.xy);if(x.w==0.)discard;float d=distance(x.xyz,centre);if(d>reach)discard;gl_FragDepth=d*.5;o=id+1u;}`;

const PLACE = `flat out vec3 centre;flat out float reach;flat out uint id;
bool place(vec4 g){centre=turn*g.xyz;reach=g.w*1.002+2e-6;vec2 p=middle+centre.xy*scale;float w=reach*scale+1.;
return g.w<=0.||centre.z<-reach||any(lessThan(p,vec2(-w)))||any(greaterThan(p,size+w));}
`;

const points = {
  vertex: `layout(location=0) in vec4 g;layout(location=1) in uint slot;${ON_SPHERE}${PLACE}
void main(){id=slot;bool off=place(g);gl_Position=off?vec4(2.,2.,2.,1.):clip(middle+centre.xy*scale);gl_PointSize=2.*reach*scale+1.;}`,
  fragment: ON_SPHERE + NEAREST,
};

/** Large cells as squares, since drivers differ in how large a point may be. */
const quads = {
  vertex: `layout(location=0) in vec4 g;layout(location=1) in uint slot;${ON_SPHERE}${PLACE}
void main(){id=slot;bool off=place(g);
vec2 corner=vec2(gl_VertexID&1,(gl_VertexID>>1)&1)*2.-1.;gl_Position=off?vec4(2.,2.,2.,1.):clip(middle+(centre.xy+corner*reach)*scale);}`,
  fragment: ON_SPHERE + NEAREST,
};

/** The cells of a slice: the largest p·y wins, through the depth test; below cos θ nothing covers. */
const slice = {
  vertex: `uniform sampler2D geometry;uniform sampler2D rows;${ON_SPHERE}${PLACE}flat out vec3 row;
void main(){int k=gl_InstanceID;vec4 p=texelFetch(rows,ivec2(k,0),0);id=uint(p.w);row=turn*p.xyz;
bool off=place(texelFetch(geometry,ivec2(k,0),0));vec2 corner=vec2(gl_VertexID&1,(gl_VertexID>>1)&1)*2.-1.;
if(span>0.)gl_Position=vec4(corner,0.,1.);else gl_Position=off?vec4(2.,2.,2.,1.):clip(middle+(centre.xy+corner*reach)*scale);}`,
  fragment: `${ON_SPHERE}uniform float cover;uniform float most;flat in vec3 centre;flat in float reach;flat in uint id;flat in vec3 row;out uint o;
void main(){vec4 x=onSphere(gl_FragCoord.xy);if(x.w==0.||distance(x.xyz,centre)>reach)discard;float c=dot(row,x.xyz);gl_FragDepth=clamp(.5-.5*c/most,0.,1.);o=c>=cover?id+1u:0xffffffffu;}`,
};

/** The map: discs, the small before the large. */
const discs = {
  vertex: `layout(location=0) in vec2 xy;layout(location=1) in float width;uniform vec2 size;uniform vec2 middle;uniform vec2 stretch;uniform float grow;flat out uint id;flat out float w;
void main(){id=uint(gl_VertexID);w=clamp(width*grow,2.,40.);vec2 p=middle+xy*stretch;gl_Position=vec4(p/size*2.-1.,w/64.*2.-1.,1.);gl_PointSize=w+1.;}`,
  fragment: `flat in uint id;flat in float w;out uint o;
void main(){vec2 d=(gl_PointCoord-.5)*(w+1.);if(dot(d,d)>w*w*.25)discard;o=id+1u;}`,
};

/** Cells of a map: as on the ball, in the plane. */
const IN_PLANE = `uniform vec2 middle;uniform float scale;uniform vec2 size;
vec4 clip(vec2 pixel){return vec4(pixel/size*2.-1.,0.,1.);}`;
const NEAREST_IN_PLANE = `flat in vec2 centre;flat in float reach;flat in uint id;out uint o;
void main(){float d=distance((gl_FragCoord.xy-middle)/scale,centre);if(d>reach)discard;gl_FragDepth=d*.4;o=id+1u;}`;
const PLACE_IN_PLANE = `flat out vec2 centre;flat out float reach;flat out uint id;
bool place(vec4 g){centre=g.xy;reach=g.w*1.0005+2e-6;vec2 p=middle+centre*scale;float w=reach*scale+1.;
return g.w<=0.||any(lessThan(p,vec2(-w)))||any(greaterThan(p,size+w));}
`;
const flatPoints = {
  vertex: `layout(location=0) in vec4 g;layout(location=1) in uint slot;${IN_PLANE}${PLACE_IN_PLANE}
void main(){id=slot;bool off=place(g);gl_Position=off?vec4(2.,2.,2.,1.):clip(middle+centre*scale);gl_PointSize=2.*reach*scale+1.;}`,
  fragment: IN_PLANE + NEAREST_IN_PLANE,
};
const flatQuads = {
  vertex: `layout(location=0) in vec4 g;layout(location=1) in uint slot;${IN_PLANE}${PLACE_IN_PLANE}
void main(){id=slot;bool off=place(g);
vec2 corner=vec2(gl_VertexID&1,(gl_VertexID>>1)&1)*2.-1.;gl_Position=off?vec4(2.,2.,2.,1.):clip(middle+(centre+corner*reach)*scale);}`,
  fragment: IN_PLANE + NEAREST_IN_PLANE,
};

/** Dots on the ball, on their way from one place to another; the small before the large. */
const dots = {
  vertex: `layout(location=0) in vec3 a;layout(location=1) in vec3 b;layout(location=2) in vec2 widths;uniform mat3 turn;uniform vec2 middle;uniform float scale;uniform vec2 size;uniform float t;uniform float grow;flat out uint id;flat out float w;
void main(){id=uint(gl_VertexID);vec3 p=mix(a,b,t);float n=length(p);p=turn*(n>1e-4?p/n:a);w=min(mix(widths.x,widths.y,t)*grow,60.);
bool off=p.z<0.||w<.6;gl_Position=off?vec4(2.,2.,2.,1.):vec4((middle+p.xy*scale)/size*2.-1.,w/64.*2.-1.,1.);gl_PointSize=w+1.;}`,
  fragment: discs.fragment,
};

const fill = `void main(){vec2 p=vec2((gl_VertexID<<1)&2,gl_VertexID&2)*2.-1.;gl_Position=vec4(p,0.,1.);}`;

/** Second pass: ids to colours, walls, marks. Nothing here touches the geometry. A region's style is two
 * words: its colour with a byte above (1 kept by the filter, 2 pinned), and the bits of its radius. */
const SHADE = `uniform usampler2D ids;uniform usampler2D style;
uniform int fine;uniform ivec2 guard;uniform float scale;uniform vec2 middle;uniform bool ball;uniform bool walls;uniform float wallWidth;
uniform uint over;uniform uint chosen;uniform vec3 ink;uniform vec3 paper;uniform vec3 accent;uniform vec3 gap;uniform bool filtered;out vec4 o;
uint at(ivec2 q){return texelFetch(ids,q,0).r;}
vec4 shade(ivec2 q){uint a=at(q);if(a==0u)return vec4(0.);
 vec2 px=(vec2(q-guard)+.5)/float(fine);float light=1.;
 if(ball){vec2 s=(px-middle)/scale;float z=sqrt(max(0.,1.-dot(s,s)));light=mix(.62,1.,smoothstep(0.,.42,z));}
 if(a==0xffffffffu){float h=mod(px.x+px.y,7.);return vec4(mix(paper,gap,h<1.6?.75:.16)*mix(1.,light,.5),1.);}
 uint i=a-1u;uvec2 s=texelFetch(style,ivec2(i&4095u,i>>12u),0).rg;uint f=s.r>>24u;
 vec3 c=vec3(s.r&255u,(s.r>>8u)&255u,(s.r>>16u)&255u)/255.*light;
 if(filtered&&(f&1u)==0u)c=mix(c,paper,.86);
 if((f&2u)!=0u)c=mix(c,accent,.18);
 if(walls){int e=0;e+=int(at(q+ivec2(1,0))!=a);e+=int(at(q-ivec2(1,0))!=a);e+=int(at(q+ivec2(0,1))!=a);e+=int(at(q-ivec2(0,1))!=a);
  if(e>0){float r=wallWidth>0.?wallWidth:uintBitsToFloat(s.g)*scale;c=mix(c,ink,min(1.,float(e)*.36)*clamp((r-1.5)/5.,0.,1.)*.62);}}
 if(a==over||a==chosen||(f&2u)!=0u){int n=a==over||a==chosen?2*fine:fine;uint u=at(q+ivec2(n,0)),d=at(q-ivec2(n,0)),l=at(q+ivec2(0,n)),r=at(q-ivec2(0,n));
  if(u!=a||d!=a||l!=a||r!=a)c=a==chosen?accent:ink;else if(a==over)c=mix(c,vec3(1.),.28);}
 return vec4(c,1.);}
`;

/** A sample of each pixel, and four: two programs, since software takes twice as long for one that can do both. */
const resolve = {
  vertex: fill,
  fragment: `${SHADE}void main(){o=shade(ivec2(gl_FragCoord.xy)*fine+guard+fine/2);}`,
};
const resolve4 = {
  vertex: fill,
  fragment: `${SHADE}void main(){ivec2 p=ivec2(gl_FragCoord.xy);vec4 sum=vec4(0.);
 for(int j=0;j<2;j++)for(int k=0;k<2;k++)sum+=shade(p*2+guard+ivec2(k,j));o=sum*.25;}`,
};

export const SOURCES = Object.fromEntries(Object.entries({ points, quads, slice, discs, flatPoints, flatQuads, dots, resolve, resolve4 })
  .map(([name, s]) => [name, { vertex: HEAD + s.vertex, fragment: HEAD + s.fragment }]));
